"""`reference`: tune the dense model by the same recipe, to compare with."""

from pathlib import Path

from interlace.healing.heal import train_reference
from interlace.params.healing import ReferenceParams
from interlace.plan.record import read_reference
from interlace.printable import say
from interlace.samples.own_answers import training_set
from interlace.system.outputs import write_json

from .command import command, is_first_process, logs_folder, pinned, scratch_folder

OUT = Path("artifacts/reference")


@command(ReferenceParams)
def main(params: ReferenceParams) -> None:
    """Tune the dense model by the recipe; write no checkpoint without a reference."""
    file = Path("artifacts/reference_plan.json")
    train = training_set(Path("data/train"), Path("data/answers"))
    plan, model = read_reference(file), pinned().model
    if plan is None:
        if is_first_process():
            write_json(OUT / "none.json", None)
            say("reference: none")
        return
    inputs = [Path("artifacts/dense.json"), train, file]
    with scratch_folder("reference", inputs, params) as scratch:
        train_reference(
            model.checkpoint(),
            train,
            OUT,
            plan=plan,
            params=params.recipe,
            seed=params.seed,
            scratch=scratch,
            logs=logs_folder("reference", scratch),
        )
    if is_first_process():
        say(f"reference: {OUT}: {len(plan.tune)} of {plan.n_layers} layers tuned")


if __name__ == "__main__":
    main()
