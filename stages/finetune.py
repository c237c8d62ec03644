"""`finetune`: heal the pruned model."""

from pathlib import Path

from interlace.finetune import finetune
from interlace.outputs import remove
from interlace.params import FinetuneParams
from interlace.plan import read_plan
from stages.command import command, is_first_process, pinned, scratch_folder


@command(FinetuneParams)
def main(params: FinetuneParams) -> None:
    """Train the planned layers of the pruned model; all others stay as they are."""
    pruned, train, plan = Path("artifacts/pruned"), Path("data/train"), Path("artifacts/plan.json")
    scratch = scratch_folder("finetune", params, [pruned, train, plan])
    finetune(
        pruned,
        train,
        Path("artifacts/tuned"),
        Path("metrics/loss.csv"),
        plan=read_plan(plan),
        params=params.finetune,
        seed=params.seed,
        scratch=scratch,
        trust_remote_code=pinned("model")["trust_remote_code"],
    )
    if is_first_process():
        remove(scratch)


if __name__ == "__main__":
    main()
