"""`reference`: tune the dense model by the same recipe, to compare with."""

from pathlib import Path

from interlace.outputs import remove, whole, write_json
from interlace.params import ReferenceParams
from interlace.reference import read_reference
from stages.command import command, is_first_process, pinned, scratch_folder


@command(ReferenceParams)
def main(params: ReferenceParams) -> None:
    """Tune the dense model by the recipe; write no checkpoint without a reference."""
    file, train, out = Path("artifacts/reference_plan.json"), Path("data/train"), Path("artifacts")
    plan, model = read_reference(file), pinned("model")
    if plan is None:
        if is_first_process():
            with whole(out / "reference") as folder:
                folder.mkdir()
                write_json(folder / "reference.json", None)
        return
    from interlace.healing import train_reference
    from interlace.sources import model_folder

    scratch = scratch_folder("reference", params, [Path("artifacts/sources.json"), train, file])
    train_reference(
        model_folder(model),
        train,
        out / "reference",
        plan=plan,
        params=params.finetune,
        seed=params.seed,
        scratch=scratch,
        trust_remote_code=model["trust_remote_code"],
    )
    if is_first_process():
        remove(scratch)


if __name__ == "__main__":
    main()
