"""The campaign's table, from the rows of its results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

from campaign.outcomes import FAULTS, OUTCOMES


class Row(TypedDict):
    """The result of one try, a line of the results' file."""

    name: str
    kind: str
    target: str
    detail: str
    outcome: str
    reason: str
    vague: bool
    seconds: float


HEADS = ("kind", "tried", "same bytes after", *OUTCOMES[1:])


def lines(rows: Sequence[Row]) -> list[str]:
    """The table in Markdown: a line for each kind, and the sum."""
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    counts = {
        kind: Counter(row["outcome"] for row in rows if row["kind"] == kind) for kind in kinds
    }
    counts["all"] = Counter(row["outcome"] for row in rows)
    body = [
        [kind, str(count.total()), *(str(count[outcome]) for outcome in OUTCOMES)]
        for kind, count in counts.items()
    ]
    rule = ["---", *["---:"] * (len(HEADS) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (HEADS, rule, *body)]


def faults(rows: Sequence[Row]) -> list[Row]:
    """The tries that found a fault."""
    return [row for row in rows if row["outcome"] in FAULTS]


PAGE = """\
# Reliability

`make campaign` breaks the pipeline on purpose and counts what happens. It kills stages, changes inputs, fills the disk
and starts two runs at once, on tiny untrained models on a CPU. {scope}

    make campaign

{table}

Of the clear lines, {late} came from a later stage than `pin`, {vague} named neither the file nor the field.

| outcome | meaning |
| --- | --- |
| same bytes after | the outputs of the stage are those of an unharmed run; of `ttft`, whose times vary, the same keys |
| accepted | the changed input is another valid input (`ratio: 0.2`, a flipped bit of a weight): it is recorded by `pin`, and the results are its own |
| clear line | refused with one line and exit code 1 or 2 |
| traceback | a traceback, a crash, or an end without a line |
| hang | a stage of seconds that did not end in a minute |
| silent | other results, without a word: a damaged file was used, or the change was not recorded |
| lost | after the fault has gone, the stage fails, or an earlier result is gone |

- **kill**: SIGKILL, SIGTERM and SIGINT of the stage alone, of its process group, of dvc alone, of all under dvc, of one of
  two torchrun workers. The moments are a share of the stage's file-system events (files opened to write, moves,
  removals) or of its time. Then the same command runs again, under dvc `dvc repro`.
- **disk full**: a limit on the size of files (0 to 60,000 bytes), or no space from some write on. Earlier outputs must stay.
- **two at once**: one stage twice in one folder; in two folders with one `DVC_ROOT`; one of those killed.
- **params.yaml** to **images**: the inputs. `pin` runs, then each stage whose inputs differ, as under dvc.
- **artifacts**: files of earlier stages, edited or damaged, read by hand. A valid edit is accepted; dvc would undo it.
- **scratch**: a stage is killed, a file of its unfinished work harmed, the stage run again.
- **under dvc**: a torn dvc.lock, a harmed artifact, then `dvc repro`.

Every try has a name; `python tests/campaign --only NAME` repeats it and keeps its folder. Results are written down as
they come, in `.scratch/campaign/results-{seed}.jsonl`, and a campaign that was cut off resumes. A few dozen tries are
part of `make test`.
"""


def page(rows: Sequence[Row], seed: int, *, complete: bool) -> str:
    """The page of a campaign, docs/reliability.md."""
    clear = [row for row in rows if row["outcome"] == "clear line"]
    late = [row for row in clear if not row["reason"].startswith("stages.pin")]
    scope = (
        f"All {len(rows)} tries of seed {seed}:"
        if complete
        else (f"{len(rows)} tries of seed {seed}, a part of them:")
    )
    inputs = [row for row in late if row["kind"] not in ("disk full", "two at once", "artifacts")]
    return PAGE.format(
        scope=scope,
        table="\n".join(lines(rows)),
        late=len(inputs),
        vague=sum(row["vague"] for row in clear),
        seed=seed,
    )
