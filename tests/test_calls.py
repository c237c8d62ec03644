"""The calls from Python, on a tiny model: the same results as the stages, and what they refuse."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from drawn_rows import stored
from plans import PLAN, digests
from training_runs import TUNED, moved_weights

import interlace
from interlace.cli import main
from interlace.errors import InputError
from interlace.measurements.collect import collect, provenance_of
from interlace.methods.choice import Choice, Method, Request
from interlace.methods.registry import METHODS
from interlace.params.evaluating import Evaluate
from interlace.params.exporting import Export
from interlace.params.healing import Finetune
from interlace.params.measuring import Collect, LossOptions
from interlace.params.section import Section
from interlace.params.timing import Ttft
from interlace.pruning import prune as pruning
from interlace.scores.average import score
from interlace.scores.table import Scores
from interlace.sources.pin import pin_model

ROWS = models.rows(10)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored(tmp_path_factory.mktemp("rows") / "made_up.parquet", ROWS)


@pytest.fixture(scope="module")
def scores(dense_dir: Path, file: Path) -> pa.Table:
    return interlace.measure(dense_dir, file)


def test_completion_shows_what_is_public() -> None:
    assert {"Plan", "measure", "prune", "select"} < set(dir(interlace))
    assert all(getattr(interlace, name) is not None for name in dir(interlace))


@pytest.mark.parametrize(
    ("call", "sections"),
    [
        ("measure", (Collect, LossOptions)),
        ("export", (Export,)),
        ("heal", (Finetune,)),
        ("evaluate", (Evaluate,)),
        ("time_to_first_token", (Ttft,)),
    ],
)
def test_arguments_have_the_defaults_of_the_parameters(
    call: str, sections: Sequence[type[Section]]
) -> None:
    fields = {name: field for kind in sections for name, field in kind.model_fields.items()}
    arguments = inspect.signature(getattr(interlace, call)).parameters
    own = {"samples", "answers_file"}  # the calls' own meaning
    shared = arguments.keys() & fields.keys() - own
    assert len(shared) > 3
    assert {name: arguments[name].default for name in shared} == {
        name: fields[name].default for name in shared
    }


def test_measure_returns_what_the_stages_write(
    dense_dir: Path, scores: pa.Table, project: Path, dense: Any, processor: Any, tmp_path: Path
) -> None:
    rows = sorted((project / "data/train").glob("*.parquet"))[0]  # as `sample` wrote them
    pinned = pin_model(str(dense_dir), None, hashes=tmp_path / "hashes.json")
    folders = {
        "folders": [rows.parent],
        "out": tmp_path / "states",
        "scratch": tmp_path / "scratch",
    }
    options = {"params": Collect(dtype="auto"), "provenance": provenance_of(pinned)}
    collect(dense, processor, **folders, **options)
    expected = score(tmp_path / "states/similarity", sinks=tmp_path / "states/sinks")
    table = interlace.measure(dense_dir, models.rows(16), batch_tokens=8192)
    assert table.equals(expected) and table.schema.metadata[b"n_layers"] == b"6"


def test_rows_may_be_in_memory_or_on_disk(dense_dir: Path, scores: pa.Table, file: Path) -> None:
    for rows in (ROWS, pq.read_table(file)):
        assert interlace.measure(dense_dir, rows).equals(scores)
    few = interlace.measure(dense_dir, ROWS, samples=4, max_span=3)
    assert max(few["n"].to_pylist()) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": [{"texts": 3}]}, "rows: not mappings with images, texts and source"),
        ({"rows": "none.parquet"}, r"rows = none\.parquet: no such file"),
        ({"model": "none"}, "model.id = none: no such folder"),
        ({"samples": 0}, "samples = 0: must be 1 or more"),
        ({"dtype": "int8"}, "measure: dtype = 'int8': "),
        ({"method": "cka"}, "method = cka: is measured on domain probes"),
    ],
)
def test_measure_names_a_wrong_argument(
    dense_dir: Path, arguments: dict[str, Any], message: str
) -> None:
    values = {"model": dense_dir, "rows": ROWS} | arguments
    with pytest.raises(InputError, match=message):
        interlace.measure(**values)


def test_export_takes_a_hub_id_and_replaces_nothing_in_silence(
    dense_dir: Path, pruned_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interlace.sources.pin.hub_snapshot", lambda *_: dense_dir)
    out = interlace.export("org/name", PLAN, tmp_path / "pruned")
    before = digests(out)
    with pytest.raises(InputError, match="pruned: holds a checkpoint already; name another"):
        interlace.export("org/name", PLAN, out, dtype="float16")
    assert digests(out) == before
    interlace.export(dense_dir, PLAN, out, dtype="float16", overwrite=True)
    assert digests(out) != before
    with pytest.raises(InputError, match="compensate = lstsq: is fitted on rows; pass rows"):
        interlace.export(dense_dir, PLAN, tmp_path / "new", compensate="lstsq")


def test_heal_trains_the_planned_layers_alone(
    dense_dir: Path, pruned_dir: Path, tmp_path: Path
) -> None:
    steps = {"max_steps": 2, "learning_rate": 1e-2, "batch_size": 4, "micro_batch_size": 2}
    options = steps | {"curve": tmp_path / "loss.csv", "work": tmp_path / "work"}
    out = interlace.heal(pruned_dir, PLAN, ROWS, tmp_path / "tuned", **options)
    moved = moved_weights(pruned_dir, out)
    assert moved and all(name.startswith(TUNED) for name in moved)
    assert (tmp_path / "loss.csv").read_text().startswith("step,loss")
    assert not [*(tmp_path / "work/heal").iterdir()]  # done
    with pytest.raises(InputError, match="tuned: holds a checkpoint already"):
        interlace.heal(pruned_dir, PLAN, ROWS, out, **options)
    with pytest.raises(InputError, match="learn from the dense model; name it as dense"):
        interlace.heal(pruned_dir, PLAN, ROWS, tmp_path / "new", local_steps=1)


def test_times_need_requests() -> None:
    with pytest.raises(InputError, match="nothing to send; pass rows, or shapes"):
        interlace.time_to_first_token("a", "b")


def run(*words: object) -> Any:
    return CliRunner().invoke(main, ["prune", *map(str, words)], catch_exceptions=False)


def test_prune_measures_once_however_often_it_is_interrupted(
    dense_dir: Path, file: Path, scores: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "pruned"
    words = dense_dir, "--data", file, "--out", out, "--ratio", "0.2"
    with monkeypatch.context() as patch:
        patch.setattr(pruning, "write_pruned", None)  # as if it were killed there
        with pytest.raises(TypeError):
            run(*words)
    assert not out.exists()
    with monkeypatch.context() as patch:
        patch.setattr("interlace.measurements.measure.collect", None)
        result = run(*words)
    assert result.exit_code == 0, result.output
    assert "dense" in result.output and "5 kept" in result.output
    plan = interlace.read_plan(out / pruning.PLAN)
    expected = interlace.select(scores, ratio=0.2)
    assert plan.drop == expected.drop and plan.stability is not None
    assert interlace.export(dense_dir, expected, tmp_path / "by_hand").exists()
    (out / pruning.PLAN).unlink()
    assert digests(out) == digests(tmp_path / "by_hand")
    assert {path.name for path in tmp_path.iterdir()} == {"pruned", "by_hand"}
    again = run(*words)
    assert again.exit_code == 2 and "pruned: holds a checkpoint already" in again.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--ratio 0.9", "cannot be dropped"),
        ("--ratio 2", "ratio = 2.0: must be greater than 0 and less than 1"),
        ("--method interlase", "did you mean interlace?"),
        ("--method math-aware", "draws; choose another method, or run the pipeline"),
    ],
)
def test_prune_refuses_before_it_measures(
    dense_dir: Path, file: Path, tmp_path: Path, words: str, message: str
) -> None:
    result = run(dense_dir, "--data", file, "--out", tmp_path / "new", *words.split())
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert message in result.stderr
    assert not [*tmp_path.iterdir()]


def test_a_method_of_one_s_own_can_be_chosen_by(
    scores: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deepest(table: Scores, request: Request) -> Choice:
        """Drop the deepest layers."""
        order = sorted(request.free, reverse=True)
        return Choice.of_ranking(order, dict.fromkeys(order, 0.0), table, request)

    monkeypatch.setattr("interlace.methods.registry.METHODS", dict(METHODS))
    interlace.register_method("deepest", Method(deepest, needs=(), spares_sinks=False))
    assert interlace.select(scores, method="deepest", drops=2).drop == [4, 5]
    for name in ("sleb", ""):
        with pytest.raises(InputError, match="choose another name"):
            interlace.register_method(name, Method(deepest))
