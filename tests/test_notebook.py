"""The notebook in docs/ runs, and gives what is written in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from notebook_runs import run, text_of

from interlace.methods.registry import METHODS

NOTEBOOK = Path(__file__).parents[1] / "docs/python.ipynb"


@pytest.mark.slow
def test_the_notebook_gives_the_outputs_that_are_written_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("interlace.methods.registry.METHODS", dict(METHODS))  # it adds one
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    for cell, again in zip(cells, run(NOTEBOOK), strict=True):
        if cell["cell_type"] == "code":
            texts = [text_of(cell), text_of(again)]
            if "varies" in cell["metadata"].get("tags", ()):  # with the processor
                texts = [re.sub(r"\d+\.\d+|None", "#", text) for text in texts]
            assert texts[0] == texts[1], cell["id"]
