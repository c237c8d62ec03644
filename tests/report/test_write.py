"""`report`: what lies in the workspace becomes a summary, figures and a card per checkpoint."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import browser
import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from huggingface_hub import ModelCard
from pyarrow import csv
from report.report_cases import (
    DATASHEET,
    SCORES,
    SIZE_ROWS,
    SOURCES,
    TTFT,
    change_scores,
    evaluations,
    full_scores,
    plan,
)
from report.test_run_page import CONTRAST, WIDTHS, tab
from sources_json import pinned_model

from interlace.cli import main
from interlace.errors import InputError
from interlace.evaluation.scores.answers import Answer, write_answers
from interlace.outputs import write_json
from interlace.params.whole import Params
from interlace.plan.removals import Removals
from interlace.report.facts.published import PUBLISHED
from interlace.report.facts.run import read_json
from interlace.report.write import write_report
from interlace.scores.table import SCHEMA
from interlace.selection.calibration import SIZES
from interlace.selection.reference import reference_plan, write_reference
from interlace.selection.removals import paper_rule, removals

__all__ = ["tab"]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    artifacts, metrics = tmp_path / "artifacts", tmp_path / "metrics"
    rows = [
        {"criterion": criterion, "first": first, "span": span, "value": value}
        for (criterion, first, span), value in full_scores(24, 3).values.items()
        if span <= 3 and criterion == "cosine"
    ]
    about = {"n_layers": "24", "deepstack_layers": "3", "model": "made-up"}
    for folder in ("artifacts/pruned", "dense", "data/train", "data/calibration"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("artifacts/pruned", "dense"):
        (tmp_path / folder / "model.safetensors").write_bytes(models.weights_file())
    (tmp_path / "dense/README.md").write_text("---\nlicense: apache-2.0\n---\n")
    for name, parts in (("train", (3, 4)), ("calibration", (2,))):
        for number, size in enumerate(parts):
            rows_file = tmp_path / "data" / name / f"part-{number}.parquet"
            pq.write_table(pa.table({"source": ["a"] * size}), rows_file)
    schema = SCHEMA.with_metadata(about)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), artifacts / "scores.parquet")
    write_json(artifacts / "plan.json", plan().model_dump(mode="json"))
    write_json(artifacts / "sources.json", SOURCES)
    others = Removals(
        rule=paper_rule("interlace"), removals=tuple(removals(full_scores(24, 3), (0.25,)))
    )
    write_json(artifacts / "removals.json", others.model_dump(mode="json"))
    write_json(tmp_path / "data/datasheet.json", asdict(DATASHEET))
    for name, result in evaluations().items():
        write_json(artifacts / f"evaluation/{name}.json", result.as_json())
        write_answers(answers(name), artifacts / f"evaluation/answers/{name}.parquet")
    shutil.copy(Path(__file__).parents[2] / PUBLISHED, tmp_path / "data")
    write_json(metrics / "ttft.json", TTFT)
    csv.write_csv(pa.Table.from_pylist(SIZE_ROWS, schema=SIZES), metrics / "calibration_size.csv")
    (metrics / "probes.csv").write_text("task,domain,layer,similarity\nsolve,math,0,0.9\n")
    (metrics / "loss.csv").write_text("step,loss,learning_rate,grad_norm\n1,2,0.1,1\n2,1,0.1,1\n")
    (metrics / "local_loss.csv").write_text("step,relative_error,learning_rate\n")
    return tmp_path


def add_reference(workspace: Path, **changes: Any) -> None:
    """The tuned dense model, which answers as the dense one does."""
    made = reference_plan("dense-ft", 0.25, None, pinned_model(n_layers=24))
    write_reference(workspace / "artifacts/reference_plan.json", made)
    folder = workspace / "artifacts/evaluation"
    write_json(folder / "reference.json", evaluations()["dense"].as_json() | changes)
    write_answers(answers("dense"), folder / "answers/reference.parquet")


def answers(model: str) -> list[Answer]:
    """A hundred to each benchmark, of which as many are right as its score says."""
    return [
        Answer(f"{i:06d}-0", name, str(i), "asked", "yes", "", float(i < score))
        for name, score in SCORES[model].items()
        for i in range(100)
    ]


def report(root: Path, model: str = "a/b") -> Path:
    long = {"max_new_tokens": 16384}
    params = Params.model_validate(
        {"model": {"id": model}, "data": {"id": "c/d"}, "evaluate": long}
    )
    places = (root / "artifacts", root / "metrics", root / "data")
    write_report(*places, dense_dir=root / "dense", params=params)
    return root / "artifacts/report"


def test_each_checkpoint_gets_a_card_of_its_own(workspace: Path) -> None:
    written = report(workspace)
    cards = {path.stem: ModelCard.load(path) for path in written.glob("*.md")}
    assert set(cards) == {"pruned", "tuned"}
    assert {card.data.license for card in cards.values()} == {"apache-2.0"}
    for card in cards.values():
        assert "revision `c1a2b3d`: 7 rows |" in card.text
        assert "| calibration | 2 rows" in card.text
        assert "bit for bit, on" not in card.text


def test_what_export_wrote_comes_into_the_cards(workspace: Path) -> None:
    parity = {"samples": 4, "tokens": 99, "greatest_difference": 0.0}
    write_json(workspace / "artifacts/export.json", {"parity": parity})
    assert "bit for bit, on 4 samples of 99 tokens" in (report(workspace) / "tuned.md").read_text()


def test_the_same_workspace_gives_the_same_cards_and_page(workspace: Path) -> None:
    first = {path.name: path.read_bytes() for path in report(workspace).glob("*.[mh]*")}
    assert set(first) == {"pruned.md", "tuned.md", "report.html"}
    assert first == {path.name: path.read_bytes() for path in report(workspace).glob("*.[mh]*")}


def test_the_page_names_the_plan_by_its_hash_and_no_path(workspace: Path) -> None:
    text = (report(workspace) / "report.html").read_text()
    plan_file = (workspace / "artifacts/plan.json").read_bytes()
    assert f"sha256 {hashlib.sha256(plan_file).hexdigest()}" in text
    assert str(workspace) not in text
    assert text.count('<figure class="drawing"') == 8


def test_the_summary_is_written_beside_the_other_metrics(workspace: Path) -> None:
    report(workspace)
    assert read_json(workspace / "metrics/summary.json")["layers_after"] == 18


def test_the_summary_says_how_little_would_have_ranked_alike(workspace: Path) -> None:
    report(workspace)  # 2 of 7 rows are to calibrate; the smallest part that does is a tenth
    summary = read_json(workspace / "metrics/summary.json")
    assert summary["calibration_enough_share"] == pytest.approx(100 * 2 / 7 / 10)


def test_retention_has_an_interval_around_it(workspace: Path) -> None:
    report(workspace)
    summary = read_json(workspace / "metrics/summary.json")
    for model in ("pruned", "tuned"):
        low, high = summary[f"retention_{model}_low"], summary[f"retention_{model}_high"]
        assert low < summary[f"retention_{model}"] < high


def test_published_scores_of_the_same_run_are_written_beside_ours(workspace: Path) -> None:
    assert read_json(report(workspace) / "published.json") == []
    beside = read_json(report(workspace, "Qwen/Qwen3-VL-8B-Instruct") / "published.json")
    assert {"dense", "tuned"} == {row["model"] for row in beside}
    assert {row["ours"] for row in beside if row["benchmark"] == "AI2D"} == {80, 72}


def test_scores_of_the_page_have_errors_intervals_and_the_reference_where_there_is_one(
    workspace: Path,
) -> None:
    text = (report(workspace) / "report.html").read_text()
    assert "Dense-FT" not in text and "dense-ft" not in text
    assert "<td>80.0 ± 1.5</td>" in text
    assert re.search(r"<td>45\.0% \[3\d\.\d, 5\d\.\d\]</td>", text)  # (40/80 + 20/50) / 2
    add_reference(workspace)
    text = (report(workspace) / "report.html").read_text()
    assert '<th scope="col">tuned of Dense-FT</th>' in text
    assert "<h3>tuned and dense-ft</h3>" in text
    summary = read_json(workspace / "metrics/summary.json")
    for model in ("pruned", "tuned"):
        low, high = (summary[f"retention_{model}_of_dense_ft_{end}"] for end in ("low", "high"))
        assert low < summary[f"retention_{model}_of_dense_ft"] < high
    assert "retention_dense_ft_low" in summary


def test_compare_takes_the_reference_where_there_is_one(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    assert "dense-ft" not in CliRunner().invoke(main, ["compare"]).output
    add_reference(workspace)
    assert "tuned retains 95.0% of dense-ft" in CliRunner().invoke(main, ["compare"]).output


def test_categories_have_a_table_where_there_are_several(workspace: Path) -> None:
    for name, result in evaluations().items():
        change_scores(result, "ChartQA", category="Text/Chart")
        write_json(workspace / f"artifacts/evaluation/{name}.json", result.as_json())
    text = (report(workspace) / "report.html").read_text()
    assert "Means by category" in text and '<th scope="row">Text/Chart</th>' in text


def test_a_run_without_any_score_is_reported_all_the_same(workspace: Path) -> None:
    for name, result in evaluations().items():
        write_json(
            workspace / f"artifacts/evaluation/{name}.json", result.as_json() | {"scores": {}}
        )
        write_answers([], workspace / f"artifacts/evaluation/answers/{name}.parquet")
    written = report(workspace)
    assert "Not measured." in (written / "report.html").read_text()
    assert not (written / "retention.png").exists()


def test_local_healing_is_drawn_where_there_was_any(workspace: Path) -> None:
    assert not (report(workspace) / "local_loss.png").exists()
    lines = "step,relative_error,learning_rate,layer_4\n1,0.9,0.1,0.9\n2,0.4,0.1,0.4\n"
    (workspace / "metrics/local_loss.csv").write_text(lines)
    written = report(workspace)
    assert (written / "local_loss.png").stat().st_size > 4000
    assert "Error of local healing" in (written / "report.html").read_text()


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_a_browser_shows_the_whole_page_as_it_is_written(
    tab: browser.Page, workspace: Path, width: int
) -> None:
    add_reference(workspace)
    tab.show(report(workspace) / "report.html", width)
    headings = tab.value("[...document.querySelectorAll('h2, h3')].map(h => h.textContent)")
    at = headings.index("Comparison of answers")
    assert headings[at + 1 : at + 3] == ["dense-ft and dense", "pruned and dense"]
    assert headings.count("Comparison of answers") == 1
    assert tab.value("[...document.images].every(i => i.naturalWidth > 0)")
    assert tab.value("document.documentElement.scrollWidth") == width
    assert tab.value(CONTRAST) >= 4.5
    assert (tab.requests(), tab.complaints()) == ([], [])


def test_a_missing_measurement_is_named_and_nothing_is_written(workspace: Path) -> None:
    (workspace / "artifacts/sources.json").unlink()
    with pytest.raises(InputError, match=r"sources\.json: no such file"):
        report(workspace)
    assert not (workspace / "artifacts/report").exists()
