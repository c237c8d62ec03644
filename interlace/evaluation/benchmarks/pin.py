"""Pin the data of the evaluation, so that `evaluate` runs again when it changes."""

from __future__ import annotations

from pathlib import Path

from interlace.evaluation.benchmarks.images import check_images, image_columns
from interlace.params.evaluating import Evaluate
from interlace.sources.pin import pin_data
from interlace.sources.pinned import PinnedData, PinnedJudged


def pin_evaluation(
    params: Evaluate, hashes: Path, images: Path
) -> dict[str, PinnedData | PinnedJudged | None]:
    """Record sizes and hashes of the held-out file, the judged files and the local benchmarks.

    All images of new files are opened once.

    Args:
        params: name the files; checked by `validate`.
        hashes: file that caches the hashes of unchanged files.
        images: file that caches the files whose images passed.

    Returns:
        `heldout`, `judged` and `benchmarks` of `PinnedSources`; `None` for unused data. Benchmarks
        from the hub have no `files`, so the hub's clients stay online.

    Raises:
        InputError: as `pin_data` and `check_images` do.
    """

    def pinned(path: str, field: str) -> PinnedData:
        return pin_data(path, None, field=f"evaluate.{field}", hashes=hashes)

    benchmarks = PinnedData(id="hub") if params.benchmarks else None
    if params.benchmarks and params.data:
        benchmarks = pinned(params.data, "data")
    judged = {file: pinned(file, "judged").files or {} for file in params.judged}
    heldout = pinned(params.heldout, "heldout") if params.heldout else None
    sources = {params.data or "": benchmarks, params.heldout or "": heldout}
    digests = {
        Path(source).parent / name if Path(source).is_file() else Path(source) / name: file.sha256
        for source, files in (
            *((source, pin.files) for source, pin in sources.items() if pin and pin.files),
            *judged.items(),
        )
        for name, file in files.items()
    }
    check_images(image_columns(params), digests, images)
    return {
        "heldout": heldout,
        "judged": PinnedJudged(files=judged) if judged else None,
        "benchmarks": benchmarks,
    }
