"""The campaign's judgement, faults that it must find, and its short form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from campaign import table, tries
from campaign.bench import Bench
from campaign.outcomes import Evidence, Run, Try, judge

FINE = Run("stage", 0, "")
REFUSED = Run("stage", 2, "50%|##|\rerror: plan.json: no such file\n")
BROKEN = Run("stage", 1, "Traceback (most recent call last):\n  File\nKeyError: 'x'\n")
KILLED = Run("stage", -9, "")


@pytest.mark.parametrize(
    ("seen", "outcome"),
    [
        (Evidence(harmed=[FINE], same=True), "same"),
        (Evidence(harmed=[FINE], same=False, recorded=True), "accepted"),
        (Evidence(harmed=[FINE], same=False), "silent"),
        (Evidence(harmed=[FINE], same=False, recorded=True, damage=True), "silent"),
        (Evidence(harmed=[REFUSED]), "clear line"),
        (Evidence(harmed=[REFUSED], after=[FINE], same=True), "clear line"),
        (Evidence(harmed=[REFUSED], after=[FINE], same=True, kept=False), "lost"),
        (Evidence(harmed=[BROKEN]), "traceback"),
        (Evidence(harmed=[Run("stage", 1, "")]), "traceback"),
        (Evidence(harmed=[Run("dvc", 255, "ERROR: 'dvc.lock' is invalid.\n")]), "clear line"),
        (Evidence(harmed=[Run("dvc", 255, "'./dvc.lock' is invalid.\n")]), "clear line"),
        (Evidence(harmed=[Run("dvc", 255, "ERROR: unexpected error\n")]), "traceback"),
        (Evidence(harmed=[Run("stage", -11, "")]), "traceback"),
        (Evidence(harmed=[Run("stage", None, "")]), "hang"),
        (Evidence(harmed=[KILLED], after=[FINE], same=True, killed=True), "same"),
        (Evidence(harmed=[KILLED], after=[FINE], same=False, killed=True), "silent"),
        (Evidence(harmed=[KILLED], after=[REFUSED], same=True, killed=True), "lost"),
        (Evidence(harmed=[KILLED], after=[BROKEN], same=False, killed=True), "traceback"),
        (Evidence(harmed=[BROKEN], after=[FINE], same=True, killed=True), "traceback"),
    ],
)
def test_the_worst_that_was_seen_counts(seen: Evidence, outcome: str) -> None:
    assert judge(seen).outcome == outcome


def test_a_line_that_names_nothing_of_the_input_is_vague() -> None:
    assert not judge(Evidence(harmed=[REFUSED], names=["plan.json"])).vague
    assert judge(Evidence(harmed=[REFUSED], names=["scores.parquet"])).vague


def test_a_seed_gives_the_same_tries_each_with_a_name_of_its_own() -> None:
    listed = tries.all_tries(0)
    assert listed == tries.all_tries(0) != tries.all_tries(1)
    assert len({one.name for one in listed}) == len(listed)


def test_the_campaign_is_as_large_as_promised() -> None:
    kinds = [one.kind for one in tries.all_tries(0)]
    others = ("kill", "disk full", "two at once")
    assert kinds.count("kill") >= 100
    assert sum(kind not in others for kind in kinds) >= 500


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("bench"))
    yield bench
    bench.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "one", "outcome"),
    [
        ("in_place", Try("disk full", "score", "files of 300 bytes"), "lost"),
        ("process_in_output", Try("kill", "select", "stage KILL event 50"), "silent"),
        ("traceback", Try("kill", "select", "stage KILL event 0"), "traceback"),
        ("hang", Try("kill", "select", "stage KILL event 100"), "hang"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_a_planted_fault_is_counted(
    bench: Bench, plant: str, one: Try, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bench.variables, "CAMPAIGN_PLANTED", plant)
    monkeypatch.setattr(bench, "limit", 8.0)
    assert tries.perform(bench, one)["outcome"] == outcome


@pytest.mark.slow
def test_a_short_campaign_finds_no_fault(bench: Bench, tmp_path: Path) -> None:
    listed = tries.chosen(tries.all_tries(0), len(tries.PERFORM))  # one of each kind
    rows = list(tries.run(bench, listed, tmp_path / "results.jsonl", jobs=2))
    assert rows == tries.read_rows(tmp_path / "results.jsonl")
    assert [f"{row['name']}: {row['outcome']}: {row['reason']}" for row in table.faults(rows)] == []
