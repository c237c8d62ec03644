"""The documents name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from interlace.methods.registry import METHODS

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "data/demo/README.md"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_paragraph(method: str) -> None:
    text = (ROOT / "docs/methods.md").read_text()
    assert len(re.findall(rf"^\*\*`{method}`\*\*", text, re.MULTILINE)) == 1


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target
