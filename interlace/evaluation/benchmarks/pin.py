"""Pin the data of the evaluation, so that `evaluate` runs again when it changes."""

from __future__ import annotations

from pathlib import Path

from interlace.params.evaluating import Evaluate
from interlace.sources.pin import pin_data
from interlace.sources.pinned import PinnedData, PinnedJudged


def pin_evaluation(params: Evaluate, hashes: Path) -> dict[str, PinnedData | PinnedJudged | None]:
    """Record sizes and hashes of the held-out file, the judged files and the local benchmarks.

    Args:
        params: name the files; checked by `validate`.
        hashes: file that caches the hashes of unchanged files.

    Returns:
        `heldout`, `judged` and `benchmarks` of `PinnedSources`; `None` for unused data. Benchmarks
        from the hub have no `files`, so the hub's clients stay online.
    """

    def pinned(path: str, field: str) -> PinnedData:
        return pin_data(path, None, field=f"evaluate.{field}", hashes=hashes)

    benchmarks = PinnedData(id="hub") if params.benchmarks else None
    if params.benchmarks and params.data:
        benchmarks = pinned(params.data, "data")
    judged = {file: pinned(file, "judged").files or {} for file in params.judged}
    return {
        "heldout": pinned(params.heldout, "heldout") if params.heldout else None,
        "judged": PinnedJudged(files=judged) if judged else None,
        "benchmarks": benchmarks,
    }
