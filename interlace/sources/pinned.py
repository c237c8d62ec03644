"""Pin and open what comes from outside: the model and the data.

A source is a hub id or a local path. Pinning turns it into a small record, a hub revision or the
sizes and hashes of local files, that changes exactly when the contents do.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from interlace.checkpoint.safetensors import checkpoint_tensors
from interlace.sources.hub import _hub_snapshot

Pinned = dict[str, Any]


def identity(pinned: Pinned) -> dict[str, str]:
    """Which model it is: its id, and its revision or, of a local folder, a hash of its files'."""
    files = json.dumps(pinned.get("files"), sort_keys=True)
    revision = pinned.get("revision") or hashlib.sha256(files.encode()).hexdigest()[:16]
    return {"model": pinned["id"], "revision": revision}


def model_folder(pinned: Pinned) -> Path:
    """The local folder of a pinned model, fetched from the hub if it has to be.

    Raises:
        InputError: the hub cannot be reached, or what it holds lacks weights.
    """
    if "files" in pinned:
        return Path(pinned["id"])
    folder = _hub_snapshot(pinned["id"], pinned["revision"], "model", None)
    checkpoint_tensors(folder)
    return folder
