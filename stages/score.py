"""`score`: average the measurements."""

from pathlib import Path

from pyarrow import csv, parquet

from interlace.params.section import ScoreParams
from interlace.report.terminal.console import print_blocks
from interlace.report.terminal.profile import profile_text
from interlace.scores.average import profile, score
from interlace.scores.per_sample import read_sample_cosines
from interlace.scores.probes import probe_table
from interlace.scores.resample import bootstrap
from interlace.scores.table import read_scores
from interlace.selection.calibration import calibration_sizes
from interlace.system.outputs import whole

from .command import command


@command(ScoreParams)
def main(params: ScoreParams) -> None:
    """Average the measurements into one table of scores, and resample it."""
    artifacts, similarity = Path("artifacts"), Path("artifacts/hidden_states/similarity")
    pooled, sinks = (similarity.with_name(name) for name in ("pooled", "sinks"))
    optional = pooled, artifacts / "sensitivity/scores.parquet", sinks
    table = score(similarity, *(path if path.exists() else None for path in optional))
    cosines, scores = read_sample_cosines(similarity), read_scores(table)
    for name, rows in {"scores": table, "replicates": bootstrap(cosines)}.items():
        with whole(artifacts / f"{name}.parquet") as partial:
            parquet.write_table(rows, partial)
    tasks, sizes = probe_table(similarity), calibration_sizes(cosines, scores)
    for name, rows in ("profile", profile(table)), ("probes", tasks), ("calibration_size", sizes):
        with whole(Path(f"metrics/{name}.csv")) as partial:
            csv.write_csv(rows, partial)
    print_blocks(profile_text(scores))


if __name__ == "__main__":
    main()
