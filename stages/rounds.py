"""`rounds`: prune in steps, and measure the pruned model again after each."""

from pathlib import Path

from interlace.outputs import whole, write_json
from interlace.params.rounds import RoundsParams
from stages.command import command, pinned, scratch_root
from stages.digests import code_digest


@command(RoundsParams)
def main(params: RoundsParams) -> None:
    """Measure the model again after every round but the last; nothing to do for a single one."""
    with whole(Path("artifacts/rounds")) as folder:
        folder.mkdir()
        write_json(folder / "rounds.json", {"rounds": params.select.rounds})
        if params.select.rounds == 1:
            return
        from interlace.rounds import measure_rounds

        measure_rounds(
            pinned().model,
            Path("artifacts/scores.parquet"),
            [Path("data/calibration"), Path("data/probes")],
            Path("data/train"),
            folder,
            params=params,
            decision=Path("artifacts/budget.json"),
            cache=scratch_root() / "rounds" / code_digest("rounds"),
        )


if __name__ == "__main__":
    main()
