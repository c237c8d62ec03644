"""`score`: average the measurements."""

from pathlib import Path

import pyarrow.csv
import pyarrow.parquet as pq
from rich.console import Console

from interlace.outputs import whole
from interlace.params import ScoreParams
from interlace.report.profile import profile_figure, profile_text
from interlace.scores import read_scores, score
from stages.command import command


@command(ScoreParams)
def main(params: ScoreParams) -> None:
    """Average the measurements into one table of scores, and draw them over depth."""
    table = score(Path("artifacts/hidden_states/similarity"))
    out = Path("artifacts/scores.parquet")
    with whole(out) as partial:
        pq.write_table(table, partial)
    with whole(Path("metrics/profile.csv")) as partial:
        pyarrow.csv.write_csv(table, partial)
    profile_figure(table, Path("artifacts/profile.png"))
    Console(highlight=False).print(profile_text(read_scores(out)))


if __name__ == "__main__":
    main()
