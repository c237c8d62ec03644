"""A damaged artifact is named in one line by whatever reads it, and a good one is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report.report_cases import full_scores, score_table
from report.test_write import make_workspace
from similarity_rows import mean_scores, sample_cosines

from interlace.data.datasheet import read_datasheet
from interlace.errors import InputError, MissingInputError
from interlace.evaluation.scores.answers import read_answers
from interlace.evaluation.scores.result import read_evaluation
from interlace.plan.record import Decision, read_decision, read_plan, read_reference
from interlace.plan.removals import read_removals
from interlace.pruning.report import ExportReport
from interlace.report.facts.calibration import read_sizes
from interlace.report.facts.speed import parse_speed, read_timings
from interlace.report.facts.summary import read_summary
from interlace.report.figures.training import local_loss_figure, loss_figure
from interlace.samples.own_answers import read_answer_sheet
from interlace.scores.probes import read_probe_table
from interlace.scores.resample import bootstrap, read_replicates
from interlace.scores.table import NATIVE, read_scores
from interlace.sources.pinned import PinnedSources
from interlace.system.outputs import write_json
from stages.command import WRITERS, read_pinned, way_out

DECISION = Decision(budget="params", target=0.8, drops=5, values={0: 1.0}, how="", reason="")
SUMMARY = {f"{w}_{t}": 4 for w in ("layers", "parameters") for t in ("before", "after")}


def read_replicates_of_cosines(path: Path) -> Any:
    return read_replicates(path, mean_scores(sample_cosines()))


JSON: dict[str, Callable[[Path], Any]] = {
    "artifacts/plan.json": read_plan,
    "artifacts/budget.json": read_decision,
    "artifacts/reference_plan.json": read_reference,
    "artifacts/removals.json": read_removals,
    "artifacts/export.json": ExportReport.read,
    "artifacts/sources.json": PinnedSources.read,
    "artifacts/params.json": lambda path: read_pinned("params"),
    "artifacts/evaluation/dense.json": read_evaluation,
    "metrics/ttft.json": lambda path: parse_speed(read_timings(path)),
    "metrics/summary.json": read_summary,
    "data/answers/answers.json": lambda path: read_answer_sheet(path.parent),
    "data/datasheet.json": read_datasheet,
}
TABLES: dict[str, Callable[[Path], Any]] = {
    "artifacts/scores.parquet": lambda path: read_scores(path, by_score=True),
    "artifacts/replicates.parquet": read_replicates_of_cosines,
    "artifacts/evaluation/answers/dense.parquet": read_answers,
    "metrics/calibration_size.csv": read_sizes,
    "metrics/probes.csv": read_probe_table,
    "metrics/loss.csv": lambda path: loss_figure(path, path.with_suffix(".png")),
    "metrics/local_loss.csv": lambda path: local_loss_figure(path, path.with_suffix(".png")),
}
READERS = JSON | TABLES
ALLOWED = {
    "null": {"artifacts/budget.json", "artifacts/reference_plan.json"},  # nothing was asked for
    "object": {"artifacts/export.json", "artifacts/params.json", "metrics/ttft.json"},
    "other keys": {"artifacts/params.json", "metrics/ttft.json"},
}
DAMAGE = {
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "object": b"{}",
    "number": b"1",
    "text": b'"text"',
    "binary": b"\x80\x00\xff" * 9,
    "deep lists": b"[" * 200_000,
    "deep objects": b'{"drop": ' * 100_000,
    "other keys": b'{"other": 1}',
}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files of a run; tests leave them as they are."""
    root = make_workspace(tmp_path_factory.mktemp("run"))
    write_json(root / "artifacts/budget.json", DECISION.model_dump(mode="json"))
    write_json(root / "artifacts/reference_plan.json", None)
    write_json(root / "artifacts/params.json", {"loss_criterion": None})
    write_json(root / "metrics/summary.json", SUMMARY | {"layers_tuned": 1})
    table = score_table(full_scores(24, 3))
    metadata = {**table.schema.metadata, "n_layers": "24", "deepstack_layers": "3"}
    pq.write_table(table.replace_schema_metadata(metadata), root / "artifacts/scores.parquet")
    replicates = bootstrap({NATIVE: sample_cosines()})
    pq.write_table(replicates, root / "artifacts/replicates.parquet")
    (root / "metrics/local_loss.csv").write_text("step,relative_error\n1,0.5\n")
    return root


@pytest.fixture
def damaged(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Write a copy of one file with other content."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, content: bytes) -> Path:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return write


def refusal(name: str, path: Path) -> str:
    with pytest.raises(InputError) as caught:
        READERS[name](path)
    message = f"{caught.value}{way_out(caught.value)}"
    assert message.startswith(f"{path}: "), message
    assert "\n" not in message
    assert isinstance(caught.value, MissingInputError)
    assert "; run `python -m stages." in message
    return message


@pytest.mark.parametrize("name", READERS)
def test_what_was_written_is_read(name: str, artifacts: Path, damaged: Callable[..., Path]) -> None:
    READERS[name](damaged(name, (artifacts / name).read_bytes()))
    assert any(f"{name}/".startswith(f"{path}/") for paths in WRITERS.values() for path in paths)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", READERS)
def test_other_content_is_refused(name: str, damage: str, damaged: Callable[..., Path]) -> None:
    path = damaged(name, DAMAGE[damage])
    if name in ALLOWED.get(damage, ()):
        READERS[name](path)
    else:
        refusal(name, path)


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_was_cut_short_or_is_gone_or_a_folder_is_refused(
    name: str, artifacts: Path, damaged: Callable[..., Path]
) -> None:
    content = (artifacts / name).read_bytes()
    if name not in ("artifacts/reference_plan.json",) and not name.endswith(".csv"):
        for end in (1, len(content) // 3, len(content) // 2, len(content) - 2):
            refusal(name, damaged(name, content[:end]))
    path = damaged(name, b"")
    path.unlink()
    if name != "artifacts/export.json":  # a run that checks nothing has none
        refusal(name, path)
    path.mkdir()
    refusal(name, path)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of values in a JSON document, one of each list."""
    if isinstance(value, dict):
        return [leaf for key in value for leaf in leaves(value[key], (*path, key))]
    if isinstance(value, list):
        return leaves(value[0], (*path, 0)) if value else []
    return [path] if path else []


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(document))
    target = copy
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return copy


@pytest.mark.parametrize("name", JSON)
def test_a_value_of_another_type_is_read_or_refused_in_one_line(
    name: str, artifacts: Path, damaged: Callable[..., Path]
) -> None:
    document = json.loads((artifacts / name).read_bytes())
    refused = 0
    for leaf in leaves(document):
        for value in (None, True, "text", 1.5, -1, 10**30, float("nan"), [], {}, [[{}]]):
            path = damaged(name, json.dumps(changed(document, leaf, value)).encode())
            try:
                READERS[name](path)
            except MissingInputError as error:
                refused += 1
                assert str(error).startswith(f"{path}: ")
                assert "\n" not in str(error)
    assert refused or not leaves(document) or name == "artifacts/params.json"


@pytest.mark.parametrize("name", [name for name in TABLES if name.endswith(".parquet")])
def test_a_table_of_other_types_or_columns_is_refused(
    name: str, artifacts: Path, damaged: Callable[..., Path]
) -> None:
    table = pq.read_table(artifacts / name)
    for column in table.column_names:
        if name == "artifacts/scores.parquet" and column in ("standard_error", "n"):
            continue  # not read
        others = [table.drop_columns([column])]
        for value in (["x"], {"x": 1}, b"x"):
            values = pa.array([value] * len(table))
            others.append(table.set_column(table.column_names.index(column), column, values))
        for other in others:
            path = damaged(name, b"")
            pq.write_table(other, path)
            assert "column" in refusal(name, path) or "not a table" in refusal(name, path)


@pytest.mark.parametrize("name", [name for name in TABLES if name.endswith(".csv")])
@pytest.mark.parametrize("cell", ["text", "1e", "\x00", "'"])
def test_a_cell_that_is_no_number_is_refused(
    name: str, cell: str, artifacts: Path, damaged: Callable[..., Path]
) -> None:
    lines = (artifacts / name).read_text().splitlines()
    cells = [cell] * len(lines[1].split(","))
    refusal(name, damaged(name, "\n".join([lines[0], ",".join(cells)]).encode()))
