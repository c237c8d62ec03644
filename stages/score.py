"""`score`: average the measurements."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from rich.console import Console

from interlace.outputs import whole
from interlace.params import ScoreParams
from interlace.report.heatmap import probe_heatmap, probe_table
from interlace.report.profile import profile_figure, profile_text
from interlace.scores import profile, read_scores, score
from stages.command import command


@command(ScoreParams)
def main(params: ScoreParams) -> None:
    """Average the measurements into one table of scores, and draw them over depth."""
    similarity, pooled = (
        Path("artifacts/hidden_states") / name for name in ("similarity", "pooled")
    )
    out, losses = Path("artifacts/scores.parquet"), Path("artifacts/sensitivity/scores.parquet")
    table = score(
        similarity, pooled if pooled.is_dir() else None, losses if losses.is_file() else None
    )
    with whole(out) as partial:
        pq.write_table(table, partial)
    tables: dict[str, pa.Table] = {"profile": profile(table), "probes": probe_table(similarity)}
    for name, rows in tables.items():
        with whole(Path(f"metrics/{name}.csv")) as partial:
            pyarrow.csv.write_csv(rows, partial)
    profile_figure(table, Path("artifacts/profile.png"))
    probe_heatmap(similarity, Path("artifacts/probes.png"))
    Console(highlight=False).print(profile_text(read_scores(out)))


if __name__ == "__main__":
    main()
