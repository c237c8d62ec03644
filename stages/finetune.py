"""`finetune`: heal the pruned model."""

from pathlib import Path

from interlace.healing.heal import heal_checkpoint
from interlace.params.healing import FinetuneParams
from interlace.plan.record import read_plan
from interlace.printable import say
from interlace.samples.own_answers import training_set

from .command import command, is_first_process, logs_folder, pinned, scratch_folder


@command(FinetuneParams)
def main(params: FinetuneParams) -> None:
    """Train the planned layers of the pruned model; all others stay as they are."""
    pruned, file = Path("artifacts/pruned"), Path("artifacts/plan.json")
    train = training_set(Path("data/train"), Path("data/answers"))
    model, plan = pinned().model, read_plan(file)
    with scratch_folder("finetune", [pruned, train, file], params) as scratch:
        dense = model.checkpoint()
        heal_checkpoint(
            dense,
            dense.at(pruned),
            train,
            Path("artifacts/tuned"),
            (Path("metrics/local_loss.csv"), Path("metrics/loss.csv")),
            plan=plan,
            params=params.finetune_options,
            seed=params.seed,
            scratch=scratch,
            logs=logs_folder("finetune", scratch),
        )
    if is_first_process():
        say(f"finetune: artifacts/tuned: {len(plan.tune)} of {len(plan.keep)} layers tuned")


if __name__ == "__main__":
    main()
