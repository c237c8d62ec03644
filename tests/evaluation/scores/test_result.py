from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from interlace.errors import InputError
from interlace.evaluation.scores.result import read_evaluation
from interlace.system.outputs import write_json

LOSS = {"loss": 0.25, "standard_error": 0.5, "tokens": 9}


def evaluation(notes: dict[str, Any], **missing: int) -> dict[str, Any]:
    score = {"score": 50.5, "standard_error": None, "n": 4, "category": "c"} | missing
    about = {"versions": {"torch": "2"}, "device": "cpu", "dtype": "float32"}
    return {"model": "m", "scores": {"a": score}, "skipped": {"b": "why"}} | about | notes


@pytest.mark.parametrize(
    "content",
    [
        evaluation({}),
        evaluation({"notes": {"a": "note"}}, missing=2),
        evaluation({"losses": {"a": LOSS}, "loss": LOSS | {"standard_error": None}}),
    ],
    ids=["plain", "notes", "losses"],
)
def test_a_file_is_written_again_to_the_byte(content: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", content)
    write_json(tmp_path / "b.json", read_evaluation(tmp_path / "a.json").as_json())
    assert (tmp_path / "b.json").read_bytes() == (tmp_path / "a.json").read_bytes()


def test_a_file_that_holds_no_evaluation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(InputError, match=f"{path}: no such file"):
        read_evaluation(path)
    path.write_text(json.dumps(evaluation({}, missing="few")))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=rf"{path}: scores\.a\.missing = 'few'"):
        read_evaluation(path)
    path.write_text("null")
    with pytest.raises(InputError, match=f"{path}: "):
        read_evaluation(path)
