"""Pin the data of the evaluation, so that `evaluate` runs again when it changes."""

from __future__ import annotations

from pathlib import Path

from interlace.params.evaluating import Evaluate
from interlace.sources.pin import pin_data
from interlace.sources.pinned import Pinned


def pin_evaluation(params: Evaluate, hashes: Path) -> dict[str, Pinned | None]:
    """Record sizes and hashes of the held-out file, the judged files and the local benchmarks.

    Args:
        params: name the files; checked by `validate`.
        hashes: file that caches the hashes of unchanged files.

    Returns:
        `pinned_heldout`, `pinned_judged` and `pinned_benchmarks`; None for unused data. Benchmarks
        from the hub have no `files`, so the hub's clients stay online.
    """

    def pinned(path: str, field: str) -> Pinned:
        return pin_data(path, None, field=f"evaluate.{field}", hashes=hashes)

    benchmarks: Pinned | None = {"id": "hub"} if params.benchmarks else None
    if params.benchmarks and params.data:
        benchmarks = pinned(params.data, "data")
    judged = {file: pinned(file, "judged")["files"] for file in params.judged}
    return {
        "pinned_heldout": pinned(params.heldout, "heldout") if params.heldout else None,
        "pinned_judged": {"files": judged} if judged else None,
        "pinned_benchmarks": benchmarks,
    }
