"""The study of healing on real weights heals and judges each model once, and resumes."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import family_processors
import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.model.chat import IGNORED
from interlace.samples.rows import iterate
from studies import real_bench, real_healing, real_healing_runs
from studies import real_healing_bench as bench
from studies.real_healing import carry_out
from studies.real_healing_inputs import PURPOSES, Inputs, Sizes, prepare, prompt_length
from studies.real_healing_plans import plan_of, searched_sets
from studies.real_healing_rows import Row, published
from studies.real_healing_runs import RECIPE, RECIPE_OWN, WAYS
from studies.real_healing_table import HealedTable, Value
from studies.real_inputs import prepare as prepare_plans
from studies.real_rows import COMPENSATED, read_rows, write_rows
from studies.real_rows import Row as Choices

pytestmark = pytest.mark.slow
PLANS = {
    "heldout_tokens": 40,
    "calibration_tokens": 60,
    "loss_tokens": 10,
    "search_tokens": 20,
    "fitted_tokens": 30,
}
SIZES = Sizes(prompt=40, answer=24, train=5, validation=3, heldout=4)
FEW = {  # ways of one or two learning rates
    name: replace(way, rates=(1e-3, 1e-2) if name == RECIPE_OWN else (1e-3,))
    for name, way in WAYS.items()
}
CELLS = (("interlace-optimal", 0.25), ("search", 0.25))


def row(seed: int) -> dict[str, Any]:
    """Return a row whose prompt is an instruction and a text of many words."""
    made = models.row(seed, images=0)
    words = " ".join(f"word{seed} is {n}" for n in range(30))
    turn = made["texts"][0] | {"user": f"Continue.\n\n{words}"}
    return made | {"texts": [turn], "package": f"package{seed % 40}"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("healing")
    family_processors.save("llama", folder / "model")
    for name, seeds in (("train", range(60)), ("test", range(100, 140))):
        pq.write_table(
            pa.Table.from_pylist([row(seed) for seed in seeds]), folder / f"{name}.parquet"
        )
    return prepared(folder)


def prepared(folder: Path) -> Inputs:
    train, test = (folder / f"{name}.parquet" for name in ("train", "test"))
    plans = prepare_plans(folder / "model", train, test, folder / "plans", **PLANS)
    return prepare(plans, train, test, folder / "healing", SIZES)


class Here:
    """Stands for the processes: does everything at once, in this one."""

    def __init__(self) -> None:
        self.tasks: list[tuple[Any, ...]] = []

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        self.tasks.append((function, *arguments[1:2]))
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future

    def runs(self, function: Callable[..., Any]) -> list[Any]:
        """Return the runs that a function was called with."""
        return [task[1] for task in self.tasks if task[0] is function]


@pytest.fixture(scope="module")
def study(inputs: Inputs) -> Any:
    """A finished study on a random model of six layers."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (real_healing, real_healing_runs):
            patch.setattr(module, "CELLS", CELLS)
        rates_from = {CELLS[0]: CELLS[0], CELLS[1]: CELLS[0]}
        patch.setattr(real_healing, "RATES_FROM", rates_from)
        for module in (real_healing, real_healing_runs, bench):
            patch.setattr(module, "WAYS", FEW)
        docs = inputs.scratch / "docs"
        docs.mkdir()
        here = Here()
        carry_out(inputs, here, docs)
        yield here, docs


def records(docs: Path) -> list[dict[str, str]]:
    with (docs / "study-real-healing.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_both_texts_have_the_same_prompts_and_no_set_shares_one(study: Any, inputs: Inputs) -> None:
    ids = {}
    for purpose in PURPOSES:
        own, labels = ([*iterate(inputs.rows(purpose, text))] for text in ("own", "labels"))
        assert [r["sample_id"] for r in own] == [r["sample_id"] for r in labels]
        assert [r["texts"][0]["user"] for r in own] == [r["texts"][0]["user"] for r in labels]
        assert own[0]["texts"] != labels[0]["texts"]
        ids[purpose] = {r["sample_id"] for r in own}
    assert not ids["train"] & ids["validation"]


def test_prompts_to_train_on_keep_their_last_words(inputs: Inputs) -> None:
    processor = Checkpoint(inputs.plans.model).open_processor()
    for one in iterate(inputs.prompts("train")):
        assert SIZES.prompt <= prompt_length(processor, one) < SIZES.prompt + 30
        assert one["texts"][0]["user"].endswith("is 29")


def test_answers_are_cut_at_the_same_length(study: Any, inputs: Inputs) -> None:
    processor = Checkpoint(inputs.plans.model).open_processor()
    for text in ("own", "labels"):
        for example in inputs.examples(processor, "heldout", text):
            assert 0 < int((example["labels"] != IGNORED).sum()) <= SIZES.answer


def test_each_plan_and_way_is_judged_at_the_best_rate_of_the_search(study: Any) -> None:
    _, docs = study
    rows = records(docs)
    healed = [r for r in rows if r["own"] and r["way"] != "pruned"]
    ways = [name for name, way in WAYS.items() if not way.cells]
    assert len(healed) == len(CELLS) * len(ways) * 2 * 2  # plain or compensated, two seeds
    trials = {
        float(r["rate"]): float(r["validation"])
        for r in rows
        if (r["method"], r["seed"], r["way"]) == (CELLS[0][0], "0", RECIPE_OWN)
        and r["compensated"] == "False"
    }
    assert len(trials) == 2
    best = min(trials, key=trials.__getitem__)
    chosen = {float(r["rate"]) for r in healed if r["way"] == RECIPE_OWN}
    assert best in chosen


def test_gains_are_over_the_recipe_on_labels(study: Any) -> None:
    rows = [r for r in records(study[1]) if r["own"] and r["way"] != "pruned"]
    recipes = {
        (r["method"], r["seed"]): float(r["own"])
        for r in rows
        if r["way"] == RECIPE and r["compensated"] == "False"
    }
    for r in rows:
        expected = recipes[r["method"], r["seed"]] - float(r["own"])
        assert float(r["gain"]) == pytest.approx(expected, abs=2e-5)


def test_a_model_that_is_half_judged_does_not_hide_another_seeds_numbers(study: Any) -> None:
    rows = read_rows(study[1] / "study-real-healing.csv", Row)
    first = next(row for row in rows if row.way == RECIPE and row.labels is not None)
    half = replace(first, seed=1, labels=None, labels_error=None)
    table = HealedTable([first, half])
    cell, start = (first.method, first.ratio), (first.way, first.compensated)
    assert table.value(cell, start, "labels") == Value(first.labels, first.labels_error)


def test_a_stopped_study_resumes(study: Any, inputs: Inputs) -> None:
    here, docs = study
    page, rows = untimed(docs / "study-real-healing.md"), records(docs)
    lost = here.runs(bench.judge)[-1]
    plan = plan_of(inputs, *lost.cell, "planned", {})
    bench.Files(inputs, lost, plan).losses_file("heldout", "own").unlink()
    (docs / "study-real-healing.csv").unlink()
    again = Here()
    carry_out(inputs, again, docs)
    assert again.runs(bench.judge) == [lost]
    assert not again.runs(bench.train)
    before, after = ([r | {"seconds": ""} for r in some] for some in (rows, records(docs)))
    assert before == after
    assert untimed(docs / "study-real-healing.md") == page


def test_models_of_the_table_are_not_healed_on_another_machine(study: Any, inputs: Inputs) -> None:
    _, docs = study
    page, table = docs / "study-real-healing.md", docs / "study-real-healing.csv"
    before, (*lines, last) = untimed(page), table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines))
    losses = inputs.scratch / "losses"
    kept = losses.rename(inputs.scratch / "kept")
    shutil.copytree(kept / "dense", losses / "dense")
    again = Here()
    carry_out(inputs, again, docs)
    (lost,) = again.runs(bench.judge)
    assert [lost.method, lost.way, str(lost.seed)] == [last.split(",")[i] for i in (0, 2, 4)]
    assert [line.split(",")[:20] for line in lines] == [
        line.split(",")[:20] for line in table.read_text().splitlines(keepends=True)[:-1]
    ]
    assert untimed(page) == before


def untimed(page: Path) -> str:
    """The page without its last section, which holds seconds."""
    text, seconds = page.read_text().split("## Cost of a training\n")
    assert seconds
    return text


def test_the_table_of_other_data_is_not_taken(study: Any, inputs: Inputs) -> None:
    table = study[1] / "study-real-healing.csv"
    assert published(inputs, table)
    other = replace(inputs, scratch=inputs.scratch.with_name("other"))
    assert not published(other, table)


def test_a_finished_study_writes_its_page_anew(study: Any, inputs: Inputs) -> None:
    _, docs = study
    page = docs / "study-real-healing.md"
    before = page.read_bytes()
    page.unlink()
    carry_out(inputs, Here(), docs)
    assert page.read_bytes() == before


def test_no_checkpoint_stays_that_was_judged_or_lost(study: Any, inputs: Inputs) -> None:
    assert not [path for path in (inputs.scratch / "tuned").iterdir() if path.is_dir()]


def test_plans_are_those_of_the_study_of_methods(study: Any, inputs: Inputs) -> None:
    assert real_bench.measured(inputs.plans, "search").is_dir()
    plan = plan_of(inputs, "search", 0.25, "planned", {})
    assert len(plan.drop) == len(plan.tune) == 1


def test_a_set_that_was_searched_before_is_not_searched_again(
    study: Any, inputs: Inputs, tmp_path: Path
) -> None:
    plan = plan_of(inputs, "search", 0.25, "planned", {})
    rows = [
        Choices("search", 0.25, "auto", dropped=tuple(plan.drop), rise=0.1),
        Choices("search", 0.25, "none", dropped=(0,)),
        Choices("search", 0.25, "auto", weights=COMPENSATED, dropped=(1,)),
    ]
    write_rows(rows, tmp_path / "study-real.csv", Choices)
    sets = searched_sets(tmp_path / "study-real.csv")
    assert sets == {0.25: tuple(plan.drop)}
    real_bench.measured(inputs.plans, "search").rename(tmp_path / "search")
    again = plan_of(inputs, "search", 0.25, "planned", sets)
    (tmp_path / "search").rename(real_bench.measured(inputs.plans, "search"))
    assert (again.drop, again.tune, again.freeze) == (plan.drop, plan.tune, plan.freeze)
