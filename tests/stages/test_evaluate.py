from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sources_json import write_sources

from interlace.evaluation.scores.answers import read_answers
from interlace.evaluation.scores.result import Evaluation
from interlace.system.documents import as_yaml, read_yaml
from interlace.system.resumable import content_digest
from stages import evaluate

RESULT = Evaluation(
    model="pruned", scores={}, skipped={}, versions={}, device="cpu", dtype="float32"
)


@pytest.fixture
def served() -> list[Path]:
    """The folders of servers' replies that runs of the stage were given."""
    return []


@pytest.fixture
def scratches(served: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of unfinished answers that runs of the stage were given."""
    given: list[Path] = []
    folders = served

    def fake(folder: Path, *, scratch: Path, served: Path, **other: Any) -> Evaluation:
        write(str(scratch / "answers-0.jsonl"), "{}")
        given.append(scratch)
        folders.append(served)
        return RESULT

    root = Path(__file__).parents[2]
    params = read_yaml(root / "params.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(evaluate, "evaluate_checkpoint", fake)
    Path("params.yaml").write_text(as_yaml(params))
    write("artifacts/pruned/config.json", "{}")
    write("artifacts/pruned/model.safetensors", "weights")
    pin("rows")
    return given


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def pin(data: str) -> None:
    write_sources(Path(), heldout={"id": data, "files": {}})


def run(model: str = "pruned") -> None:
    done = CliRunner().invoke(evaluate.main, ["--model", model], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_unfinished_answers_are_found_again(scratches: list[Path]) -> None:
    run()
    run()
    assert scratches[0] == scratches[1]


def test_answers_of_other_weights_data_or_params_are_never_taken(scratches: list[Path]) -> None:
    run()
    write("artifacts/pruned/model.safetensors", "others!")
    run()
    pin("other rows")
    run()
    params = read_yaml(Path("params.yaml"))
    params["evaluate"]["max_new_tokens"] += 1
    write("params.yaml", as_yaml(params))
    run()
    assert len(set(scratches)) == 4


def by_server(url: str, concurrency: int) -> None:
    params = read_yaml(Path("params.yaml"))
    servers = {"urls": [url]}
    params["evaluate"] |= {"engine": "endpoint", "endpoint": servers, "concurrency": concurrency}
    write("params.yaml", as_yaml(params))


def test_unfinished_answers_of_a_server_are_found_again_at_another_address(
    scratches: list[Path], served: list[Path]
) -> None:
    by_server("http://a/v1", 1)
    run()
    by_server("http://b/v1", 9)
    run()
    assert scratches[0] == scratches[1]


def test_replies_of_a_server_are_kept_by_the_weights_of_the_model(
    scratches: list[Path], served: list[Path]
) -> None:
    by_server("http://a/v1", 1)
    run()
    pin("other rows")
    run()
    write("artifacts/pruned/model.safetensors", "others!")
    run()
    assert served[0] == served[1] != served[2]


def test_a_finished_evaluation_leaves_no_unfinished_answers(scratches: list[Path]) -> None:
    run()
    assert not scratches[0].exists()
    written = json.loads(Path("artifacts/evaluation/pruned.json").read_text())
    assert written == RESULT.as_json() | {"weights": content_digest(Path("artifacts/pruned"))}


def test_a_reference_that_nobody_asked_for_is_written_as_nothing(scratches: list[Path]) -> None:
    Path("artifacts/reference").mkdir()
    run("reference")
    assert not scratches
    assert json.loads(Path("artifacts/evaluation/reference.json").read_text()) is None
    assert read_answers(Path("artifacts/evaluation/answers/reference.parquet")) == []
