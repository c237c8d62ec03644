"""What `pin` would write of local sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interlace.sources.pinned import PinnedData, PinnedModel, PinnedSources
from interlace.system.outputs import write_json


def pinned_model(folder: Path | str = "model", **changes: Any) -> PinnedModel:
    """A local model of six layers, visual features added after the first three."""
    record = PinnedModel(
        id=str(folder),
        trust_remote_code=False,
        files={},
        model_type="qwen3_vl",
        n_layers=6,
        deepstack_layers=3,
    )
    return record.model_copy(update=changes)


def write_sources(project: Path, **records: Any) -> None:
    """Write artifacts/sources.json with some records of `PinnedSources`."""
    local = {"model": pinned_model(), "data": PinnedData(id="rows", files={})}
    sources = PinnedSources.model_validate(local | records)
    write_json(project / "artifacts/sources.json", sources.as_json())
