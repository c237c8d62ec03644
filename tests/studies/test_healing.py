"""The study of healing scores as the pipeline does and resumes where it was stopped."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.evaluation.run.evaluate import evaluate_checkpoint
from interlace.evaluation.scores.retention import overall_score
from interlace.model.chat import collate
from interlace.model.open import open_model
from interlace.params.evaluating import Evaluate
from studies.healing import (
    OTHERS,
    STEPS,
    VARIANTS,
    HealedScore,
    Results,
    Run,
    at_best,
    best,
    carry_out,
    plan_of,
    recipe,
    stages,
)
from studies.healing_page import write_page
from studies.heldout_score import heldout_score, questions


def test_the_score_is_that_of_evaluate(dense_dir: Path, processor: Any, tmp_path: Path) -> None:
    path, model = tmp_path / "test.parquet", open_model(dense_dir)
    rows = [models.row(i, images=i % 2, source=f"source_{i % 2}") for i in range(10)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    length = {"batch_size": 4, "max_new_tokens": 3}
    prompts = [question.inputs for question in questions(path, processor)]
    for number, row in enumerate(sorted(rows, key=lambda row: row["source"])):
        if number % 3 == 0:  # make some of an untrained model's answers right
            inputs = collate([prompts[number]], pad_token_id=0)
            tokens = model.generate(**inputs, do_sample=False, max_new_tokens=3)
            new_tokens = tokens[0, prompts[number]["input_ids"].shape[0] :]
            answer = processor.tokenizer.decode(new_tokens, skip_special_tokens=True)
            row["texts"][-1]["assistant"] = answer if answer.strip() else "x"
    pq.write_table(pa.Table.from_pylist(rows), path)
    params = Evaluate(heldout=str(path), **length)
    evaluation = evaluate_checkpoint(Checkpoint(dense_dir), params=params, model_name="x")
    score = heldout_score(model, processor, questions(path, processor), **length)
    assert score == pytest.approx(overall_score(evaluation.scores))
    assert score > 0


GOOD_RATES = (5e-4, 1e-3)


class Fake:
    """Stands for the processes: scores follow from the run."""

    def __init__(self) -> None:
        self.measured: list[Run] = []

    def submit(self, _: Any, run: Run) -> Future[HealedScore]:
        self.measured.append(run)
        gain = {"pruned": 0.0, "recipe": 5.0}.get(run.variant, 8.0)
        done: Future[HealedScore] = Future()
        worse = 0.0 if run.rate in GOOD_RATES else 0.001
        done.set_result(HealedScore(80 + gain + run.seed / 10 - worse, run.rate))
        return done


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    monkeypatch.setattr("studies.healing.feasible", lambda run: run.ratio < 0.4)
    monkeypatch.setattr("studies.healing.prune", lambda run: None)
    return Results(tmp_path / "runs.csv")


WAYS = ("local", "recipe", "all")


def carried_out(results: Results, bench: Any) -> None:
    for what, runs in stages(results, WAYS, 960):
        carry_out(bench, results, runs, what)


def test_finished_runs_are_not_run_again(results: Results) -> None:
    carried_out(results, first := Fake())
    assert len(first.measured) == len(set(first.measured))
    carried_out(Results(results.path), again := Fake())
    assert again.measured == []


def test_runs_take_the_rates_that_the_searches_before_them_chose(results: Results) -> None:
    carried_out(results, bench := Fake())
    compared = [run for run in bench.measured if run.method == "random" and run.seed and run.rate]
    rates = {run.variant: (run.rate, run.local_rate) for run in compared}
    assert rates == {"local": (1e-3, 0), "recipe": (5e-4, 0), "all": (5e-4, 1e-3)}


def test_the_learning_rate_is_chosen_by_the_held_out_score_of_the_first_seed(
    results: Results,
) -> None:
    for seed, rate, found in ((0, 1e-3, (80, 90)), (0, 3e-3, (90, 80)), (1, 1e-2, (95, 95))):
        results.add(Run("interlace-optimal", 0.25, seed, "local", rate=rate), HealedScore(*found))
    assert best(results, "local", 0.1, "interlace-optimal") == 3e-3
    assert best(results, "local", 0.4, "interlace-optimal") == 0
    assert best(results, "local", 0.25, "random") == 0
    assert at_best(results, Run("interlace-optimal", 0.25, 2, "all")).local_rate == 3e-3


@pytest.mark.parametrize("variant", [*VARIANTS, *OTHERS])
def test_every_way_sees_as_many_samples(variant: str) -> None:
    made = recipe(Run("interlace-optimal", 0.25, 0, variant, rate=1e-3))
    assert made.max_steps + made.local_steps == STEPS
    assert made.batch_size == 32


def written_page(results: Results, dense: float, *others: str) -> str:
    carried_out(results, Fake())
    write_page(results, WAYS, others, dense, 1650, 960, results.path.parent)
    return (results.path.parent / "study-healing.md").read_text()


def test_the_page_says_how_much_comes_back(results: Results) -> None:
    page = written_page(results, 95.05)
    # dense 95.05, recipe 85.05 over the seeds, the others 88.05: 3 of 10 points
    assert "| `interlace-optimal` | 25% | 10.0 | 30% | 30% |" in page
    assert "At least 30% at both 25% and 40%:\n\n- `interlace-optimal`: `local`, `all`\n" in page
    assert (results.path.parent / "study-healing.png").stat().st_size > 1000


def test_what_is_lost_within_the_error_has_no_row_but_counts(results: Results) -> None:
    page = written_page(results, 85.3)  # 0.25 points above the recipe
    lost = page[page.index("## Recovery of the recipe's loss") : page.index("At least 30%")]
    assert "| `interlace-optimal` | 25% |" not in lost
    assert "- `interlace-optimal`: `local`, `all`\n" in page


def test_other_ways_stand_beside_the_recipe(results: Results) -> None:
    page = written_page(results, 95.05, *OTHERS)
    assert "| `recipe` | 85.0 ± 0.1 | 0.0005 |" in page
    assert "| `adapters` | 88.0 ± 0.1 | 0.001 |" in page


def test_a_run_tunes_the_layers_of_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}
    monkeypatch.setattr("interlace.select", lambda *_, **said: asked.update(said))
    plan_of(Run("interlace-optimal", 0.25, 0, "anchors"))
    assert asked["tuned"] == "anchors"
    assert recipe(Run("interlace-optimal", 0.25, 0, "adapters", rate=1e-3)).lora_rank == 32
