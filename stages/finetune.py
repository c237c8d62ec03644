"""`finetune`: heal the pruned model."""

from pathlib import Path

from interlace.healing.heal import heal
from interlace.params.healing import FinetuneParams
from interlace.plan.record import read_plan
from interlace.samples.own_answers import training_set

from .command import command, logs_folder, pinned, scratch_folder


@command(FinetuneParams)
def main(params: FinetuneParams) -> None:
    """Train the planned layers of the pruned model; all others stay as they are."""
    pruned, plan = Path("artifacts/pruned"), Path("artifacts/plan.json")
    train = training_set(Path("data/train"), Path("data/answers"))
    model = pinned().model
    with scratch_folder("finetune", [pruned, train, plan], params) as scratch:
        dense = model.checkpoint()
        heal(
            dense,
            dense.at(pruned),
            train,
            Path("artifacts/tuned"),
            (Path("metrics/local_loss.csv"), Path("metrics/loss.csv")),
            plan=read_plan(plan),
            params=params.finetune_options,
            seed=params.seed,
            scratch=scratch,
            logs=logs_folder("finetune", scratch),
        )


if __name__ == "__main__":
    main()
