"""The same answers and scores from every engine; an engine that cannot work is one line."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_server import chat_server
from evaluation.published_rows import write_parquet
from models import row, rows
from serving import stand_in, transformers_serve

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.evaluation.run.evaluate import evaluate_checkpoint
from interlace.evaluation.run.validate import check_evaluation, validate
from interlace.evaluation.scores.answers import Answer, read_answers
from interlace.evaluation.scores.result import ServingEngine
from interlace.params.evaluating import Evaluate

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with transformers_serve(tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture
def params(write_rows: Write, tmp_path: Path) -> Evaluate:
    """A published benchmark, and rows of up to two images and two turns."""
    write_parquet("AI2D", tmp_path / "data/AI2D.parquet", 4)
    return Evaluate(
        benchmarks=("AI2D",),
        data=str(tmp_path / "data"),
        heldout=str(write_rows(rows(11))),
        max_new_tokens=6,
    )


def by(params: Evaluate, url: str, **changes: Any) -> Evaluate:
    """The same evaluation by a server."""
    values = {"engine": "endpoint", "endpoint": {"urls": [url]}} | changes
    return Evaluate.model_validate(params.model_dump() | values)


def texts(answers: list[Answer]) -> list[Answer]:
    """Answers without losses, and without spaces around them, which `transformers serve` drops."""
    return [
        replace(answer, answer=answer.answer.strip(), loss=None, n_tokens=None, choices=None)
        for answer in answers
    ]


@pytest.fixture(scope="module")
def roomy(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """That model with wide bounds on the area of an image."""
    folder = tmp_path_factory.mktemp("roomy") / "model"
    shutil.copytree(checkpoint.folder, folder)
    processor = checkpoint.open_processor(min_pixels=256, max_pixels=2**16)
    processor.save_pretrained(folder)
    return Checkpoint(folder)


@pytest.mark.slow
@pytest.mark.parametrize("max_pixels", [None, 2048])
def test_a_server_gives_the_answers_and_scores_of_the_opened_model(
    roomy: Checkpoint, params: Evaluate, url: str, tmp_path: Path, max_pixels: int | None
) -> None:
    params = params.model_copy(update={"max_pixels": max_pixels})
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    opened = evaluate_checkpoint(roomy, params=params, model_name="dense", answers_file=here)
    served = evaluate_checkpoint(
        roomy, params=by(params, url), model_name="dense", answers_file=there
    )
    expected = read_answers(here)
    assert len({answer.answer for answer in expected}) > 5  # else equality would say little
    assert read_answers(there) == texts(read_answers(there)) == texts(expected)
    assert served.scores == opened.scores and served.skipped == opened.skipped
    assert served.loss is None and not served.losses and not served.notes
    assert served.engine == ServingEngine(name="endpoint")
    assert (served.device, served.dtype, set(served.versions)) == (None, None, {"lmms_eval"})
    assert url not in json.dumps(served.as_json())


def test_a_server_is_started_on_the_checkpoint(
    checkpoint: Checkpoint, params: Evaluate, tmp_path: Path
) -> None:
    answers, folder, command = tmp_path / "a.parquet", tmp_path / "served", stand_in("ready")
    started = by(params, "", engine="vllm", endpoint={}, vllm={"command": command})
    result = evaluate_checkpoint(
        checkpoint, params=started, model_name="pruned", answers_file=answers, served=folder
    )
    assert {answer.answer for answer in read_answers(answers)} == {"42"}
    name = " ".join(Path(word).name for word in command.split())
    assert result.engine == ServingEngine(name="vllm", version="1.2.3", command=name)
    assert (folder / "pruned.log").read_text().startswith(f"loading {checkpoint.folder} False")
    assert any((folder / "replies").rglob("*.json"))


def question(content: Any) -> str:
    return content if isinstance(content, str) else str(content[-1]["text"])


@pytest.fixture
def heldout(write_rows: Write) -> Evaluate:
    examples = [row(seed) for seed in range(8)]
    return Evaluate(heldout=str(write_rows(examples)), concurrency=1, max_failed=1)


def test_an_answer_that_failed_for_good_is_missing_and_asked_again_by_the_next_run(
    checkpoint: Checkpoint, heldout: Evaluate, tmp_path: Path
) -> None:
    failing = {"replies": 2}

    def reply(content: Any) -> Any:
        failing["replies"] -= 1
        return 400 if failing["replies"] >= 0 else "42"

    run = {"model_name": "dense", "served": tmp_path / "served"}
    with chat_server(reply, version="1.2") as server:
        params = by(heldout, server.url, endpoint={"urls": [server.url], "models": {"dense": "m"}})
        result = evaluate_checkpoint(checkpoint, params=params, answers_file=tmp_path / "a", **run)
        (score,) = result.scores.values()
        assert (score.n, score.missing) == (6, 2)
        assert result.notes == {"made_up": "2 rows have no answer and count nowhere"}
        assert result.engine == ServingEngine(name="endpoint", version="1.2")
        answers = read_answers(tmp_path / "a")
        assert sorted(answer.answer for answer in answers) == ["", ""] + ["42"] * 6
        assert sum(answer.score is None for answer in answers) == 2
        again = evaluate_checkpoint(checkpoint, params=params, **run)
        assert again.scores["made_up"].n == 8 and not again.notes
    assert len(server.requests) == 8 + 2


def test_too_many_failed_answers_stop_it_and_finished_ones_are_kept(
    checkpoint: Checkpoint, heldout: Evaluate, tmp_path: Path
) -> None:
    replies: list[Any] = ["1", "2", "3", 413, "5", 413]
    with chat_server(lambda content: replies.pop(0) if replies else "6") as server:
        endpoint = {"urls": [server.url], "models": {"dense": "m"}}
        params = by(heldout, server.url, endpoint=endpoint, max_failed=0.2)
        scratch = tmp_path / "scratch"
        with pytest.raises(
            InputError,
            match=r"^evaluate: 2 of 8 answers failed, more than evaluate\.max_failed = 0\.2 .*"
            r" answers 413 for model 'm': .*smaller images",
        ):
            evaluate_checkpoint(checkpoint, params=params, model_name="dense", scratch=scratch)
        assert len(server.requests) in (6, 7)  # one may be on its way
        evaluate_checkpoint(checkpoint, params=params, model_name="dense", scratch=scratch)
    assert len(server.requests) == 8 + 2  # the next run asks for what failed


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"endpoint": {}}, r"^evaluate\.endpoint\.urls: empty; name the servers"),
        (
            {"endpoint": {"urls": ["localhost:8000"]}},
            r"^evaluate\.endpoint\.urls = 'localhost:8000': not an address",
        ),
        (
            {"endpoint": {"urls": ["http://localhost/v1"], "key_variable": "UNSET"}},
            r"^evaluate\.endpoint\.key_variable = 'UNSET': .* is not set",
        ),
        ({"heldout_metric": "next-token"}, r"^evaluate\.engine = endpoint: .*next-token"),
        (
            {"engine": "vllm", "vllm": {"command": "no-such-program serve"}},
            r"^evaluate\.vllm\.command = 'no-such-program serve': no such program",
        ),
        ({"engine": "vllm", "vllm": {"command": " "}}, r"^evaluate\.vllm\.command: empty"),
        ({"engine": "vllm", "vllm": {"command": "'a"}}, r"command = \"'a\": .*close the quote"),
    ],
    ids=["no url", "address", "key", "metric", "program", "empty", "quote"],
)
def test_settings_of_an_engine_that_cannot_work_are_refused_by_pin(
    heldout: Evaluate, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        validate(by(heldout, "http://127.0.0.1:9/v1", **changes))


def test_pin_asks_the_servers_unless_the_dense_model_is_evaluated(
    heldout: Evaluate, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    down = by(heldout, "http://127.0.0.1:9/v1")
    result, dense = tmp_path / "dense.json", str(checkpoint.folder)
    with pytest.raises(InputError, match=r"^evaluate\.endpoint\.urls: .*:9/v1 cannot be reached"):
        check_evaluation(down, dense, result)
    with chat_server(lambda content: "Hi", ["other"]) as server:
        with pytest.raises(
            InputError, match=r"^evaluate\.endpoint\.models\.dense = '/.*': .* serves other; name"
        ):
            check_evaluation(by(heldout, server.url), dense, result)
        named = {"urls": [server.url], "models": {"dense": "other"}}
        check_evaluation(by(heldout, server.url, endpoint=named), dense, result)
    result.write_text("{}")
    check_evaluation(down, dense, result)


def test_a_refused_key_stops_the_evaluation_at_once(
    checkpoint: Checkpoint, heldout: Evaluate
) -> None:
    with chat_server(lambda content: 401) as server:
        endpoint = {"urls": [server.url], "models": {"dense": "m"}}
        params = by(heldout, server.url, endpoint=endpoint)
        with pytest.raises(InputError, match=r"^evaluate\.endpoint: .* the key is not accepted"):
            evaluate_checkpoint(checkpoint, params=params, model_name="dense")
    assert len(server.requests) <= 2  # one may be on its way


def test_a_bound_below_the_processor_s_smallest_image_is_refused(
    checkpoint: Checkpoint, heldout: Evaluate
) -> None:
    with (
        chat_server(lambda content: "Hi") as server,
        pytest.raises(InputError, match=r"^evaluate\.max_pixels = 1024: .* 4,096 pixels"),
    ):
        endpoint = {"urls": [server.url], "models": {"dense": "m"}}
        params = by(heldout, server.url, endpoint=endpoint, max_pixels=1024)
        evaluate_checkpoint(checkpoint, params=params, model_name="dense")
