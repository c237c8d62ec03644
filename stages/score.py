"""`score`: average the measurements."""

from pathlib import Path

from pyarrow import csv, parquet
from rich.console import Console

from interlace.outputs import whole
from interlace.params.section import ScoreParams
from interlace.report.terminal.profile import profile_text
from interlace.scores.average import profile, score
from interlace.scores.per_sample import measured
from interlace.scores.probes import probe_table
from interlace.scores.resample import resampled
from interlace.scores.table import read_scores
from interlace.selection.stability import calibration_sizes
from stages.command import command


@command(ScoreParams)
def main(params: ScoreParams) -> None:
    """Average the measurements into one table of scores, and resample it."""
    artifacts, found = Path("artifacts"), Path("artifacts/hidden_states/similarity")
    optional = (found.with_name("pooled"), artifacts / "sensitivity/scores.parquet")
    table = score(found, *(path if path.exists() else None for path in optional))
    samples, scores = measured(found), read_scores(table)
    for name, rows in {"scores": table, "replicates": resampled(samples)}.items():
        with whole(artifacts / f"{name}.parquet") as partial:
            parquet.write_table(rows, partial)
    tasks, sizes = probe_table(found), calibration_sizes(samples, scores)
    for name, rows in ("profile", profile(table)), ("probes", tasks), ("calibration_size", sizes):
        with whole(Path(f"metrics/{name}.csv")) as partial:
            csv.write_csv(rows, partial)
    Console(highlight=False).print(profile_text(scores))


if __name__ == "__main__":
    main()
