"""Metadata of the base model that hold for what is made of it: its licence and its languages."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interlace.system.documents import card_metadata

INHERITED = ("license", "license_name", "license_link", "language")
# SHA-256 of whole texts, without the lines below and with single spaces.
TEXTS = {
    "0649bc87ac07c40d996369e9e058b11734e3eedb25ae8be9e6293f1efb340353": "apache-2.0",
    "fe2a9817987f862eaced948f0468c7f51d2fedfc48c5c505b246a49a3870e9a5": "mit",
}
_FREE_LINES = re.compile(r"(?m)^\s*(Copyright\b.*|(The )?MIT License( \(MIT\))?)$")


def inherited_metadata(base_dir: Path) -> dict[str, Any]:
    """Read the licence and the languages from the base model's own card, if it has one.

    Without a licence there, the file `LICENSE` tells it if it is the text of Apache-2.0 or MIT.
    """
    data = card_metadata(base_dir / "README.md")
    metadata = {name: data[name] for name in INHERITED if data.get(name)}
    if "license" not in metadata and (licence := licence_of(base_dir)):
        metadata["license"] = licence
    return metadata


def licence_text(inherited: Mapping[str, Any]) -> str:
    """Say which licence the base model states, by its metadata; and that it states none."""
    if "license" not in inherited:
        return "the base model states none"
    name = inherited.get("license_name") or inherited["license"]
    link = inherited.get("license_link")
    return f"the base model's, {name}" + (f" ({link})" if link else "")


def licence_of(folder: Path) -> str | None:
    """Return the hub's identifier of a folder's one licence file; None where it is not certain."""
    files = [path for path in folder.glob("*") if re.match("LICEN[CS]E|COPYING", path.name, re.I)]
    if len(files) != 1 or not files[0].is_file():
        return None
    text = _FREE_LINES.sub("", files[0].read_text(encoding="utf-8", errors="replace"))
    text = " ".join(text.replace("https://", "http://").split())
    return TEXTS.get(hashlib.sha256(text.encode()).hexdigest())
