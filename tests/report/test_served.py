"""Served speeds on the page and in the card, where they were measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report.report_cases import TTFT, make_run

from interlace.errors import InputError
from interlace.report.card.card import model_card
from interlace.report.facts.speed import parse_speed, read_timings
from interlace.report.page.run import run_page
from interlace.system.outputs import write_json

RATIOS = {
    f"{key}_{name}": value
    for key in ("ttft", "throughput")
    for name, value in {
        "speedup": 1.2,
        "speedup_low": 1.18,
        "speedup_high": 1.22,
        "ideal": 1.24,
    }.items()
}
LOAD: dict[str, Any] = RATIOS | {
    "concurrency": 16,
    "new_tokens": 1,
    "rounds": 5,
    "ttft_dense_ms": 120.0,
    "ttft_tuned_ms": 100.0,
    "throughput_dense_tokens_per_s": 1500.0,
    "throughput_tuned_tokens_per_s": 1800.0,
}
UNSURE = LOAD | {"concurrency": 64, "ttft_speedup": None, "ttft_speedup_refused": "too wide"}
SERVED: dict[str, Any] = TTFT | {
    "served": {"prefill_16": LOAD, "prefill_64": UNSURE},
    "served_engine": "vllm",
    "served_command": "vllm serve",
    "served_version": "0.11.0",
    "served_fixed_lengths": True,
}


def read(metrics: dict[str, Any], folder: Path) -> Any:
    write_json(folder / "ttft.json", metrics)
    return parse_speed(read_timings(folder / "ttft.json"))


def test_served_times_are_read_by_load(tmp_path: Path) -> None:
    speed = read(SERVED, tmp_path)
    first, second = speed.served
    assert (first.concurrency, second.concurrency) == (16, 64)
    assert (first.first_token.dense, first.throughput.tuned) == (120.0, 1800.0)
    assert (first.throughput.speedup, second.first_token.speedup) == (1.2, None)
    assert speed.served_by == "vllm serve, version 0.11.0"
    assert not read(TTFT, tmp_path).served


@pytest.mark.parametrize("name", ["concurrency", "ttft_ideal", "throughput_tuned_tokens_per_s"])
def test_a_load_without_a_number_is_named(tmp_path: Path, name: str) -> None:
    load = {key: value for key, value in LOAD.items() if key != name}
    with pytest.raises(InputError, match=rf"served\.prefill_16\.{name}: expected a number"):
        read(SERVED | {"served": {"prefill_16": load}}, tmp_path)


def test_the_page_and_the_cards_show_them_where_measured() -> None:
    served, plain = make_run(ttft=SERVED), make_run()
    for text in (
        run_page(served, [], plan_digest="ab" * 32),
        *(model_card(served, which) for which in ("pruned", "tuned")),  # type: ignore[arg-type]
    ):
        assert "Served by vllm serve, version 0.11.0" in text
        for cell in ("1.20x (1.18x to 1.22x)", "uncertain: 1.18x to 1.22x", "1,800.0", "1.24x"):
            assert cell in text, cell
    assert "Served by" not in run_page(plain, [], plan_digest="ab" * 32)
    assert "Served by" not in model_card(plain, "tuned")
