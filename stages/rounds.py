"""`rounds`: prune in steps, and measure the pruned model again after each."""

from pathlib import Path

from interlace.params.rounds import RoundsParams
from interlace.printable import say
from interlace.samples.own_answers import training_set
from interlace.system.outputs import whole, write_json

from .command import command, pinned, scratch_folder


@command(RoundsParams)
def main(params: RoundsParams) -> None:
    """Measure the model again after every round but the last; return at once for a single one."""
    with whole(Path("artifacts/rounds")) as folder:
        folder.mkdir()
        write_json(folder / "rounds.json", {"rounds": params.select.rounds})
        if params.select.rounds == 1:
            say("rounds: one, no pruned model is measured")
            return
        from interlace.rounds import measure_rounds, measuring_options

        samples = [Path("data/calibration"), Path("data/probes")]
        train = training_set(Path("data/train"), Path("data/answers"))
        inputs = [Path("artifacts/dense.json"), *samples]
        inputs += [train] if params.select.heal_steps else []
        with scratch_folder("rounds", inputs, *measuring_options(params), keep=True) as scratch:
            measure_rounds(
                pinned().model,
                Path("artifacts/scores.parquet"),
                samples,
                train,
                folder,
                params=params,
                decision=Path("artifacts/budget.json"),
                scratch=scratch,
            )
        say(f"rounds: {params.select.rounds}, with a pruned model measured after each but the last")


if __name__ == "__main__":
    main()
