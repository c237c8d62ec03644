"""`report`: what lies in the workspace becomes a summary, figures and a card per checkpoint."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard
from pyarrow import csv
from report.report_cases import SCORES, SOURCES, TTFT, evaluations, full_scores, plan
from report.test_stability_figure import ROWS, sizes

from interlace.errors import InputError
from interlace.evaluation.answers import Answer, write_answers
from interlace.outputs import write_json
from interlace.params import Params
from interlace.report.published import PUBLISHED
from interlace.report.write import read_json, write_report
from interlace.scores import SCHEMA


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
    for name, result in evaluations().items():
        write_json(artifacts / f"evaluation/{name}.json", result)
        write_answers(answers(name), artifacts / f"evaluation/answers/{name}.parquet")
    shutil.copy(Path(__file__).parents[2] / PUBLISHED, tmp_path / "data")
    write_json(metrics / "ttft.json", TTFT)
    csv.write_csv(sizes(ROWS), metrics / "calibration_size.csv")
    (metrics / "loss.csv").write_text("step,loss,learning_rate,grad_norm\n1,2,0.1,1\n2,1,0.1,1\n")
    return tmp_path


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
    assert text.count('<figure class="drawing"') == 3  # those of other stages are not there


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


def test_a_missing_measurement_is_named_and_nothing_is_written(workspace: Path) -> None:
    (workspace / "artifacts/sources.json").unlink()
    with pytest.raises(InputError, match=r"sources\.json: no such file; run `dvc repro`"):
        report(workspace)
    assert not (workspace / "artifacts/report").exists()
