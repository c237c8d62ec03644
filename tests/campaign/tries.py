"""The campaign: all tries of a seed, run side by side, their results written down as they come."""

from __future__ import annotations

import json
import random
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from campaign import disk_full, inputs, kills, own_files, two_at_once
from campaign.bench import Bench
from campaign.outcomes import Evidence, Try, Verdict, judge
from campaign.table import Row

MODULES = (kills, disk_full, two_at_once, inputs, own_files)
PERFORM: dict[str, Callable[[Bench, Try], Evidence]] = {
    kind: module.perform for module in MODULES for kind in module.KINDS
}


def all_tries(seed: int) -> list[Try]:
    """All tries of a seed, in its order: kinds and stages mixed."""
    listed = [
        one for module in MODULES for kind in module.KINDS for one in module.tries(kind, seed)
    ]
    listed = list(dict.fromkeys(listed))
    random.Random(f"{seed} order").shuffle(listed)
    return listed


def chosen(listed: Sequence[Try], count: int | None) -> list[Try]:
    """The first tries, as many of each kind in turn; `None`: all."""
    if count is None:
        return list(listed)
    by_kind = {kind: [one for one in listed if one.kind == kind] for kind in PERFORM}
    ranked = [(place, one) for ones in by_kind.values() for place, one in enumerate(ones)]
    return [one for _, one in sorted(ranked, key=lambda item: item[0])][:count]


def perform(bench: Bench, one: Try) -> Row:
    """Make one try and judge it."""
    begin = time.monotonic()
    try:
        verdict = judge(PERFORM[one.kind](bench, one))
    except Exception:  # a fault of the campaign: it is counted, and the others go on
        verdict = Verdict("traceback", f"the campaign itself: {traceback.format_exc()}"[-1000:])
    return Row(
        name=one.name,
        kind=one.kind,
        target=one.target,
        detail=one.detail,
        outcome=verdict.outcome,
        reason=verdict.reason,
        vague=verdict.vague,
        seconds=round(time.monotonic() - begin, 2),
    )


def run(bench: Bench, listed: Sequence[Try], results: Path | None, jobs: int) -> Iterator[Row]:
    """Make tries side by side; yield their rows as they come, and write each one down."""
    lock = threading.Lock()
    with ThreadPoolExecutor(jobs) as pool:
        pending = [pool.submit(perform, bench, one) for one in listed]
        try:
            for future in as_completed(pending):
                row = future.result()
                if results:
                    with lock, results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row, ensure_ascii=False) + "\n")
                yield row
        finally:
            for future in pending:
                future.cancel()


def read_rows(results: Path) -> list[Row]:
    """Read the rows of a campaign that ended early; a torn last line is left out."""
    rows: list[Row] = []
    for line in results.read_text(encoding="utf-8").splitlines() if results.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
