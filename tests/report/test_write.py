"""`report`: what lies in the workspace becomes a summary, figures and a card per checkpoint."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
    params,
    plan,
    score_table,
    without_scores,
)
from sources_json import pinned_model

from interlace.cli import main
from interlace.errors import InputError
from interlace.evaluation.scores.answers import Answer, write_answers
from interlace.plan.removals import Removals
from interlace.report.write import write_report
from interlace.samples.own_answers import write_labels
from interlace.selection.calibration import SIZES
from interlace.selection.reference import reference_plan, write_reference
from interlace.selection.removals import paper_rule, removals
from interlace.system.documents import read_json
from interlace.system.outputs import link_or_copy, write_json
from interlace.system.rounding import significant

DEMO = Path(__file__).parents[2] / "data/demo/model"
PARITY = {"samples": 4, "tokens": 99, "greatest_difference": 0.0}


def answers(model: str) -> list[Answer]:
    """A hundred to each benchmark, of which as many are right as its score says."""
    return [
        Answer(
            f"{i:06d}-0",
            name,
            str(i),
            "asked",
            "yes",
            "",
            float(i < score),
            1,
            1.0,
            1,
            (int(i < score),),
        )
        for name, score in SCORES[model].items()
        for i in range(100)
    ]


def make_workspace(root: Path) -> Path:
    artifacts, metrics = root / "artifacts", root / "metrics"
    for folder in ("artifacts/pruned", "dense", "data/train", "data/calibration"):
        (root / folder).mkdir(parents=True)
    for folder in ("artifacts/pruned", "dense"):
        for name in ("config.json", "model.safetensors"):
            link_or_copy(DEMO / name, root / folder / name)
    (root / "dense/README.md").write_text("---\nlicense: apache-2.0\n---\n")
    for name, sizes in (("train", (3, 4)), ("calibration", (2,))):
        for number, size in enumerate(sizes):
            rows_file = root / "data" / name / f"part-{number}.parquet"
            pq.write_table(pa.table({"source": ["a"] * size}), rows_file)
    write_labels(root / "data/answers")
    scores = full_scores(24, 3)
    pq.write_table(score_table(scores), artifacts / "scores.parquet")
    rule, others = paper_rule("interlace"), tuple(removals(scores, (0.25,)))
    records = {
        "plan": plan().model_dump(mode="json"),
        "sources": SOURCES.as_json(),
        "removals": Removals(rule=rule, removals=others).model_dump(mode="json"),
        "export": {"parity": PARITY},
    }
    for name, record in records.items():
        write_json(artifacts / f"{name}.json", record)
    write_json(root / "data/datasheet.json", asdict(DATASHEET))
    for name, evaluation in evaluations().items():
        write_json(artifacts / f"evaluation/{name}.json", evaluation.as_json())
        write_answers(answers(name), artifacts / f"evaluation/answers/{name}.parquet")
    write_json(metrics / "ttft.json", TTFT)
    csv.write_csv(pa.Table.from_pylist(SIZE_ROWS, schema=SIZES), metrics / "calibration_size.csv")
    (metrics / "probes.csv").write_text("task,domain,layer,similarity\nsolve,math,0,0.9\n")
    (metrics / "loss.csv").write_text("step,loss,learning_rate,grad_norm\n1,2,0.1,1\n2,1,0.1,1\n")
    (metrics / "local_loss.csv").write_text("step,relative_error,learning_rate\n")
    return root


def add_reference(workspace: Path) -> None:
    """The tuned dense model, which answers as the dense one does."""
    reference = reference_plan("dense-ft", 0.25, None, pinned_model(n_layers=24))
    write_reference(workspace / "artifacts/reference_plan.json", reference)
    folder = workspace / "artifacts/evaluation"
    write_json(folder / "reference.json", evaluations()["dense"].as_json())
    write_answers(answers("dense"), folder / "answers/reference.parquet")


def report(root: Path, **sections: Any) -> Path:
    folders = (root / "artifacts", root / "metrics", root / "data")
    write_report(*folders, dense_dir=root / "dense", params=params(**sections))
    return root / "artifacts/report"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return make_workspace(tmp_path)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with its report, without a reference; tests leave it as it is."""
    root = make_workspace(tmp_path_factory.mktemp("reported"))
    report(root, evaluate={"max_new_tokens": 16384})
    return root


@pytest.fixture
def page(reported: Path) -> str:
    return (reported / "artifacts/report/report.html").read_text()


def test_each_checkpoint_gets_a_card_of_its_own(reported: Path) -> None:
    cards = {p.stem: ModelCard.load(p) for p in (reported / "artifacts/report").glob("*.md")}
    assert set(cards) == {"pruned", "tuned"}
    scores = (reported / "artifacts/report/eval_results").glob("*/ai2d.yaml")
    assert {path.parent.name for path in scores} == set(cards)
    assert {card.data.license for card in cards.values()} == {"apache-2.0"}
    for card in cards.values():
        assert "revision `c1a2b3d`: 7 rows |" in card.text
        assert "| calibration | 2 rows" in card.text
        assert "bit for bit, on 4 samples of 99 tokens" in card.text


def test_the_same_workspace_gives_the_same_cards_and_page(reported: Path) -> None:
    folder = reported / "artifacts/report"
    contents = {path.name: path.read_bytes() for path in folder.glob("*.[mh]*")}
    assert set(contents) == {"pruned.md", "tuned.md", "report.html"}
    report(reported, evaluate={"max_new_tokens": 16384})
    assert contents == {path.name: path.read_bytes() for path in folder.glob("*.[mh]*")}


def test_the_page_names_the_plan_by_its_hash_and_no_path(reported: Path, page: str) -> None:
    plan_file = (reported / "artifacts/plan.json").read_bytes()
    assert f"sha256 {hashlib.sha256(plan_file).hexdigest()}" in page
    assert str(reported) not in page
    assert page.count('<figure class="drawing') == 8
    compared = re.findall(r"<h3>(\w+) and (\w+)</h3>", page)
    assert compared == [("pruned", "dense"), ("tuned", "dense"), ("tuned", "pruned")]


def test_the_summary_says_how_little_would_have_ranked_alike(reported: Path) -> None:
    # 2 of 7 rows are to calibrate; the smallest part that does is a tenth
    summary = read_json(reported / "metrics/summary.json")
    assert summary["calibration_enough_share"] == significant(100 * 2 / 7 / 10)


def test_published_scores_of_the_same_run_are_written_beside_ours(
    reported: Path, workspace: Path
) -> None:
    beside = read_json(reported / "artifacts/report/published.json")
    assert {"dense", "tuned"} == {row["model"] for row in beside}
    assert {row["ours"] for row in beside if row["benchmark"] == "AI2D"} == {80, 72}
    assert read_json(report(workspace, model={"id": "a/b"}) / "published.json") == []


def test_scores_have_errors_and_retention_its_interval(page: str) -> None:
    assert "Dense-FT" not in page and "dense-ft" not in page
    assert "<td>80.0 ± 1.5</td>" in page
    assert re.search(r"<td>45\.0% \[3\d\.\d, 5\d\.\d\]</td>", page)  # (40/80 + 20/50) / 2


def test_a_reference_is_compared_wherever_there_is_one(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    assert "dense-ft" not in CliRunner().invoke(main, ["compare"]).output
    add_reference(workspace)
    assert "tuned retains 95.0% of dense-ft" in CliRunner().invoke(main, ["compare"]).output
    page = (report(workspace) / "report.html").read_text()
    assert '<th scope="col">tuned of Dense-FT</th>' in page
    assert "<h3>tuned and dense-ft</h3>" in page
    summary = read_json(workspace / "metrics/summary.json")
    for model in ("pruned", "tuned"):
        low, high = (summary[f"retention_{model}_of_dense_ft_{end}"] for end in ("low", "high"))
        assert low < summary[f"retention_{model}_of_dense_ft"] < high
    assert "retention_dense_ft_low" in summary


def test_categories_and_local_healing_are_shown_where_there_are_any(
    reported: Path, workspace: Path
) -> None:
    assert not (reported / "artifacts/report/local_loss.png").exists()
    lines = "step,relative_error,learning_rate,layer_4\n1,0.9,0.1,0.9\n2,0.4,0.1,0.4\n"
    (workspace / "metrics/local_loss.csv").write_text(lines)
    for name, result in evaluations().items():
        change_scores(result, "ChartQA", category="Text/Chart")
        write_json(workspace / f"artifacts/evaluation/{name}.json", result.as_json())
    folder = report(workspace)
    assert (folder / "local_loss.png").stat().st_size > 4000
    page = (folder / "report.html").read_text()
    assert "Error of local healing" in page
    assert "Means by category" in page and '<th scope="row">Text/Chart</th>' in page


def test_a_run_without_any_score_is_reported_all_the_same(workspace: Path) -> None:
    folder = workspace / "artifacts/evaluation"
    for name, result in without_scores().items():
        write_json(folder / f"{name}.json", result.as_json())
        write_answers([], folder / f"answers/{name}.parquet")
    report_folder = report(workspace)
    assert "Not measured." in (report_folder / "report.html").read_text()
    assert not (report_folder / "retention.png").exists()


def test_a_missing_measurement_is_named_and_nothing_is_written(workspace: Path) -> None:
    (workspace / "artifacts/sources.json").unlink()
    with pytest.raises(InputError, match=r"sources\.json: no such file"):
        report(workspace)
    assert not (workspace / "artifacts/report").exists()


def test_show_prints_the_summary_of_its_own_plan_only(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(workspace)
    monkeypatch.chdir(workspace)

    def shown() -> str:
        result = CliRunner().invoke(main, ["show"], catch_exceptions=False)
        return " ".join(result.output.split())

    assert "ChartQA" in shown() and "MIA-Bench: no judge is configured" in shown()
    assert "no summary" not in shown()
    for file in ("artifacts/evaluation/tuned.json", "metrics/loss.csv", "metrics/summary.json"):
        content = Path(file).read_bytes()
        Path(file).write_bytes(content + b" ")
        assert f"{file} has changed" in shown() and "ChartQA" not in shown()
        Path(file).unlink()
        assert f"{file} is not there" in shown() and "ChartQA" not in shown()
        Path(file).write_bytes(content)
    write_json(Path("artifacts/plan.json"), plan(ratio=0.1).model_dump(mode="json"))
    assert "interlace: 10% of 24 layers" in shown() and "ChartQA" not in shown()
    assert "answers may be of different runs" in CliRunner().invoke(main, ["compare"]).stderr
