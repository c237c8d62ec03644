"""Served speed: servers of two models in turn, with the ideals; a bad server is one line."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_server import chat_server
from models import row
from serving import stand_in

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.params.timing import Ttft
from interlace.speed.check import check_served_speed
from interlace.speed.load import Load, TurnTiming
from interlace.speed.served import ServedTimes, time_servers
from interlace.speed.served_summary import served_line, served_metrics
from interlace.system.program import Program

IDEALS = {"ttft_ideal": 1.25, "decode_ideal": 2.0}
ROWS = [row(seed, images=seed % 2 + 1, source="ab"[seed % 2]) for seed in range(3)]
DOWN = "http://127.0.0.1:9/v1"


def served(tokens: int = 3) -> bytes:
    piece = '{"choices": [{"delta": {"content": "a"}, "finish_reason": null}]}'
    end = '{"choices": [{"delta": {}, "finish_reason": "length"}]}'
    return "".join(f"data: {event}\n" for event in [*[piece] * tokens, end, "[DONE]"]).encode()


def after(seconds: float) -> Callable[[Any], bytes]:
    def reply(content: Any) -> bytes:
        time.sleep(seconds)
        return served()

    return reply


def by(dense: str, tuned: str, **changes: Any) -> Ttft:
    endpoints = {"dense": {"url": dense, "model": "m"}, "tuned": {"url": tuned, "model": "m"}}
    values = {"engine": "endpoint", "endpoint": endpoints, "concurrency": (1, 4), "requests": 3}
    return Ttft(**(values | {"repeats": 3, "warmup": 0, "new_tokens": 3} | changes))


def measure(params: Ttft, checkpoint: Checkpoint, logs: Path) -> ServedTimes | None:
    return time_servers(checkpoint, checkpoint, ROWS, params=params, seed=0, logs=logs)


def turn(seconds: float, tokens: float = 1.0) -> TurnTiming:
    decode = 1000 * seconds if tokens > 1 else None
    return TurnTiming(1000 * seconds, decode, seconds, tokens)


def test_the_faster_server_is_faster_at_every_load(dense_dir: Path, tmp_path: Path) -> None:
    with chat_server(after(0.09)) as dense, chat_server(after(0.03)) as tuned:
        params = by(dense.url, tuned.url, max_interval=100)
        times = measure(params, Checkpoint(dense_dir), tmp_path)
    assert times is not None
    metrics = served_metrics(times, IDEALS, params, 0)
    assert list(metrics["served"]) == ["prefill_1", "prefill_4", "decode_1", "decode_4"]
    for summary in metrics["served"].values():
        assert summary["ttft_speedup"] > 1.5 and summary["throughput_speedup"] > 1.5
        assert summary["ttft_dense_ms"] > summary["ttft_tuned_ms"] >= 30
        assert summary["reply_dense_tokens"] == 3 or summary["new_tokens"] == 1
    assert metrics["served_engine"] == "endpoint" and metrics["served_fixed_lengths"]
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    # the same rounds on both sides; each first request tries what a server takes
    bodies = [[request["messages"] for request in side.requests[1:]] for side in (dense, tuned)]
    assert sorted(map(json.dumps, bodies[0])) == sorted(map(json.dumps, bodies[1]))
    assert len({json.dumps(body) for body in bodies[0]}) == len(bodies[0]) == 2 * 3 * (3 + 4)


def test_models_that_are_opened_here_need_no_server(dense_dir: Path, tmp_path: Path) -> None:
    assert measure(Ttft(), Checkpoint(dense_dir), tmp_path) is None


def test_the_ideal_throughput_weighs_prefill_by_its_share_of_the_time() -> None:
    rounds = {
        Load(1, 1): [(turn(1.0), turn(0.8))],  # 1 second per prefill
        Load(1, 5): [(turn(0.8, 5.0), turn(0.5, 5.0))],  # 4 seconds per reply
    }
    params = Ttft(max_interval=100)
    metrics = served_metrics(ServedTimes({}, rounds), IDEALS, params, 0)["served"]
    assert metrics["prefill_1"]["throughput_ideal"] == 1.25
    ideal = 4 / (1 / 1.25 + 3 / 2.0)
    assert metrics["decode_1"]["throughput_ideal"] == pytest.approx(ideal)
    assert metrics["decode_1"]["throughput_speedup"] == pytest.approx(1.6)
    assert metrics["decode_1"]["throughput_dense_tokens_per_s"] == pytest.approx(1.25)
    assert "decode_speedup" not in metrics["prefill_1"]


def test_a_load_whose_interval_is_wide_is_not_in_the_line() -> None:
    narrow, wide = [(turn(1.25), turn(1.0))] * 3, [(turn(2.0), turn(1.0)), (turn(1.0), turn(1.0))]
    rounds = {Load(1, 1): narrow, Load(16, 1): wide}
    metrics = IDEALS | served_metrics(ServedTimes({}, rounds), IDEALS, Ttft(), 0)
    assert metrics["served"]["prefill_16"]["ttft_speedup"] is None
    assert served_line(metrics) == "1.25x at 1, ideal 1.25x"


def test_servers_of_both_models_are_started_and_timed(dense_dir: Path, tmp_path: Path) -> None:
    dense, tuned, command = Checkpoint(dense_dir), Checkpoint(tmp_path), stand_in("ready")
    changes = {"engine": "vllm", "vllm": {"command": command}, "concurrency": (1, 2)}
    params = Ttft(**changes, requests=2, repeats=1, warmup=0, new_tokens=3, max_interval=100)
    times = time_servers(dense, tuned, ROWS, params=params, seed=0, logs=tmp_path / "logs")
    assert times is not None
    metrics = served_metrics(times, IDEALS, params, 0)
    assert not metrics["served_fixed_lengths"]  # it refuses `ignore_eos`
    assert metrics["served_command"] == " ".join(Path(word).name for word in command.split())
    for summary in metrics["served"].values():
        assert summary["ttft_dense_ms"] > 0 and summary["throughput_tuned_tokens_per_s"] > 0
    for name, checkpoint in (("dense", dense), ("tuned", tuned)):
        log = (tmp_path / f"logs/{name}.log").read_text()
        assert log.startswith(f"loading {checkpoint.folder} False")


def test_a_server_is_suspended_while_the_other_has_its_turn(
    dense_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    awake, turns = {"dense", "tuned"}, []

    def noting(*_: Any) -> TurnTiming:
        turns.append(list(awake))
        return turn(0.1)

    monkeypatch.setattr(Program, "suspend", lambda program: awake.discard(program.log.stem))
    monkeypatch.setattr(Program, "resume", lambda program: awake.add(program.log.stem))
    monkeypatch.setattr("interlace.speed.served.time_turn", noting)
    changes = {"engine": "vllm", "vllm": {"command": stand_in("ready")}, "concurrency": (1,)}
    params = Ttft(**changes, requests=1, repeats=2, warmup=0, new_tokens=1)
    dense = Checkpoint(dense_dir)
    times = time_servers(dense, dense, ROWS, params=params, seed=0, logs=tmp_path)
    assert sorted(turns) == [["dense"], ["dense"], ["tuned"], ["tuned"]]
    assert turns[0] != turns[1] != turns[3]  # which one goes first alternates
    assert times is not None and times.facts["version"] == "1.2.3"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"endpoint": {}}, r"^ttft\.endpoint\.dense\.url: empty; name its server"),
        (
            {"endpoint": {"dense": {"url": DOWN}, "tuned": {"url": "localhost:1"}}},
            r"^ttft\.endpoint\.tuned\.url = 'localhost:1': not an address",
        ),
        (
            {"endpoint": {"dense": {"url": DOWN, "key_variable": "UNSET"}}},
            r"^ttft\.endpoint\.dense\.key_variable = 'UNSET': .* is not set",
        ),
        (
            {"engine": "vllm", "vllm": {"command": "no-such-program serve"}},
            r"^ttft\.vllm\.command = 'no-such-program serve': no such program",
        ),
        ({"engine": "vllm", "vllm": {"command": " "}}, r"^ttft\.vllm\.command: empty"),
    ],
    ids=["no url", "address", "key", "program", "empty"],
)
def test_settings_that_cannot_work_are_refused_by_pin(
    changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        check_served_speed(by(DOWN, DOWN, **changes))


@pytest.mark.parametrize(
    ("replies", "models", "complaint"),
    [
        ([401], ["m"], r"^ttft\.endpoint\.tuned: .* the key is not accepted"),
        ([served(), 500], ["m"], r"^ttft\.endpoint\.tuned: .* answers 500"),
        ([served(), served(), None], ["m"], r"^ttft\.endpoint\.tuned\.url: .* breaks off"),
        ([served()], ["other"], r"^ttft\.endpoint\.tuned\.model = 'm': .* serves other;"),
        ([b"<html>", b"<html>"], ["m"], r"^ttft\.endpoint\.tuned\.url: "),
    ],
    ids=["key", "fails", "drops", "other model", "page"],
)
def test_a_server_that_fails_stops_the_timing_in_one_line(
    dense_dir: Path, tmp_path: Path, replies: list[Any], models: list[str], complaint: str
) -> None:
    rest = list(replies)
    with (
        chat_server(lambda content: served()) as dense,
        chat_server(lambda content: rest.pop(0) if rest else served(), models) as tuned,
        pytest.raises(InputError, match=complaint) as caught,
    ):
        measure(by(dense.url, tuned.url), Checkpoint(dense_dir), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_program_that_serves_nothing_is_named_with_its_last_lines(
    dense_dir: Path, tmp_path: Path
) -> None:
    command = f"{sys.executable} -c 'raise SystemExit(\"no such architecture\")'"
    params = Ttft(engine="vllm", vllm={"command": command})
    with pytest.raises(
        InputError, match=r"^ttft\.vllm\.command = .* before it was ready: no such architecture"
    ):
        measure(params, Checkpoint(dense_dir), tmp_path)
