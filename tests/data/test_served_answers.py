"""The dense model's answers through an endpoint: rows as usual, one line for what goes wrong."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import models
import pytest
from chat_server import SlowReply, chat_server, completion
from drawn_rows import Draw, pinned, stored
from sources_json import pinned_model

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.data.answerers import open_answerer
from interlace.data.answers import answer_rows
from interlace.data.check import check_data
from interlace.errors import InputError
from interlace.params.answers import AnswersParams, OwnAnswers, RowBounds
from interlace.params.whole import Params
from interlace.samples.own_answers import AnswerSheet, read_answer_sheet
from interlace.samples.rows import iterate
from interlace.system.outputs import remove


@pytest.fixture
def train(tmp_path: Path) -> Path:
    """Six rows with up to two images and two turns."""
    Draw(tmp_path / "data")(stored(tmp_path / "rows.parquet", models.rows(6)))
    return tmp_path / "data/train"


def params(url: str, **changes: Any) -> OwnAnswers:
    endpoint = {"url": url, "model": "m"} | changes.pop("endpoint", {})
    return OwnAnswers(**{"source": "dense", "max_new_tokens": 5, "endpoint": endpoint} | changes)


def write(
    dense_dir: Path, train: Path, url: str, *, seed: int = 0, max_length: int = 512, **changes: Any
) -> AnswerSheet:
    """Answer rows as the stage does, into `answers` beside the data."""
    folder, options = train.parents[1], params(url, **changes)
    bounds = RowBounds(min_pixels=None, max_pixels=None, max_length=max_length)
    chosen = AnswersParams(dtype="float32", seed=seed, answers=options)
    answerer = open_answerer(Checkpoint(dense_dir), chosen, bounds, memory=folder / "memory")
    out, scratch = folder / "answers", folder / "scratch"
    sheet = answer_rows(answerer, train, out, params=options, scratch=scratch)
    assert sheet == read_answer_sheet(out)
    return sheet


def question(content: Any) -> str:
    return content if isinstance(content, str) else str(content[-1]["text"])


def test_each_turn_is_one_request_with_the_replies_before_it(dense_dir: Path, train: Path) -> None:
    with chat_server(lambda content: f"re: {question(content)}") as server:
        sheet = write(dense_dir, train, server.url)
    assert (sheet.model, sheet.prompts, sheet.rows, sheet.answers, sheet.cut) == ("m", 6, 6, 9, 0)
    requests = {
        question(request["messages"][-1]["content"]): request for request in server.requests
    }
    for row, original in zip(
        iterate(train.parents[1] / "answers/rows"), iterate(train), strict=True
    ):
        assert row["sample_id"] == original["sample_id"]
        assert [turn["assistant"] for turn in row["texts"]] == [
            f"re: {turn['user']}" for turn in original["texts"]
        ]
        said: list[str] = []
        for turn in row["texts"]:
            said.append(turn["user"])
            request = requests[turn["user"]]
            shown = [question(message["content"]) for message in request["messages"]]
            assert shown == said
            assert (request["model"], request["max_tokens"]) == ("m", 5)
            assert request["temperature"] == 0 and "seed" not in request
            first = request["messages"][0]["content"]
            assert len(first) - 1 == len(row["images"]) if row["images"] else isinstance(first, str)
            said.append(turn["assistant"])


def test_replies_at_the_bound_are_counted(dense_dir: Path, train: Path) -> None:
    with chat_server(lambda content: completion("so", "length")) as server:
        sheet = write(dense_dir, train, server.url)
    assert (sheet.rows, sheet.cut, sheet.cut_share) == (6, 6, 1.0)


def test_sampled_requests_have_a_seed_of_their_own(dense_dir: Path, train: Path) -> None:
    seeds = []
    with chat_server(lambda content: question(content)) as server:
        for seed in (0, 0, 1):
            remove(train.parents[1] / "memory")
            write(dense_dir, train, server.url, seed=seed, temperature=0.7)
            seeds.append({request["seed"] for request in server.requests})
            server.requests.clear()
    assert seeds[0] == seeds[1] and not seeds[0] & seeds[2]
    assert len(seeds[0]) == 9


def test_requests_are_open_at_the_same_time_and_no_more_than_allowed(
    dense_dir: Path, train: Path
) -> None:
    slow = SlowReply("fine", seconds=0.1)
    with chat_server(slow) as server:
        write(dense_dir, train, server.url, endpoint={"concurrency": 3})
    assert slow.most == 3


def test_a_run_that_stopped_pays_for_no_reply_twice(
    dense_dir: Path, train: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    replies: list[Any] = ["one", "two", b"<html>"]
    with chat_server(lambda content: replies.pop(0) if replies else "more") as server:
        with pytest.raises(InputError, match=r"^answers\.endpoint\.url: http://.* not OpenAI's"):
            write(dense_dir, train, server.url, endpoint={"concurrency": 1})
        write(dense_dir, train, server.url, endpoint={"concurrency": 1})
    assert len(server.requests) == 9 + 1  # the one that failed is asked again


def test_prompts_that_training_would_refuse_are_not_sent(dense_dir: Path, train: Path) -> None:
    with (
        chat_server(lambda content: "fine") as server,
        pytest.raises(InputError, match=r"none of 6 .* longer than"),
    ):
        write(dense_dir, train, server.url, max_length=2)
    assert not server.requests


def pin(train: Path, url: str, **endpoint: Any) -> None:
    """Check the data as `pin` does."""
    folder = train.parents[1]
    answers = {"source": "dense", "endpoint": {"url": url, "model": "m"} | endpoint}
    checked = Params(model={"id": "m"}, data={"id": "rows"}, answers=answers)
    data = pinned(folder / "rows.parquet")
    check_data(checked, pinned_model(), data, folder / "answers", checked=folder / "checked")


def test_pin_asks_the_endpoint_unless_its_answers_are_there(
    dense_dir: Path, train: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    down = "http://127.0.0.1:9/v1"
    with chat_server(lambda content: "fine") as server:
        pin(train, server.url)
        with pytest.raises(InputError, match=r"^answers\.endpoint\.model = 'other': .* serves m;"):
            pin(train, server.url, model="other")
        with pytest.raises(InputError, match=r"^answers\.endpoint\.url: .*:9/v1 cannot be reached"):
            pin(train, down)
        write(dense_dir, train, server.url)
    pin(train, down)
    with pytest.raises(InputError, match=r"^answers\.endpoint\.url: .*:9/v1 cannot be reached"):
        pin(train, down, model="other")


@pytest.mark.parametrize(
    ("endpoint", "complaint"),
    [
        ({"url": "localhost:8000"}, r"^answers\.endpoint\.url = 'localhost:8000': not an address"),
        ({"model": None}, r"^answers\.endpoint\.model: empty"),
        ({"key_variable": "UNSET"}, r"^answers\.endpoint\.key_variable = 'UNSET': .* is not set"),
    ],
    ids=["address", "model", "key"],
)
def test_pin_refuses_settings_of_an_endpoint_that_cannot_work(
    train: Path, endpoint: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        pin(train, **({"url": "http://127.0.0.1:9/v1"} | endpoint))


def test_an_endpoint_without_a_source_of_answers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"endpoint\.url is set and source = labels"):
        OwnAnswers(endpoint={"url": "http://localhost:8000/v1", "model": "m"})
