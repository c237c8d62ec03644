"""The study on real weights scores each model once, rightly, and resumes."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import family_processors
import models
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interlace.model.bypass import bypassed
from interlace.model.row_losses import row_losses
from studies import real_bench, real_cosine
from studies.real import Study, carry_out
from studies.real_bench import Bench, Inputs
from studies.real_inputs import prepare
from studies.real_rows import Variant, read_rows
from studies.real_rules import RULES

pytestmark = pytest.mark.slow
SIZES = {
    "heldout_tokens": 40,
    "calibration_tokens": 60,
    "loss_tokens": 10,
    "search_tokens": 20,
    "fitted_tokens": 30,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("real")
    family_processors.save("llama", folder / "model")
    for name, seeds in (("train", range(60)), ("test", range(100, 140))):
        rows = [models.row(seed, images=0) for seed in seeds]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return prepared(folder)


def prepared(folder: Path) -> Inputs:
    files = (folder / f"{name}.parquet" for name in ("train", "test"))
    return prepare(folder / "model", *files, folder / "scratch", **SIZES)


class Here:
    """Stands for the processes: does everything at once, in this one."""

    def __init__(self, inputs: Inputs) -> None:
        real_bench.begin(inputs)
        self.scored: list[Variant] = []

    def submit(self, function: Any, *arguments: Any) -> Future[Any]:
        if function is real_bench.score:
            self.scored.append(arguments[0])
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future


@pytest.fixture(scope="module")
def study(inputs: Inputs) -> tuple[Here, Path]:
    """A finished study on a random model of six layers; its page is not written."""
    docs = inputs.scratch / "docs"
    docs.mkdir()
    (docs / "study-methods.csv").write_text("method,ratio,seed,benchmark,score,dropped\n")
    (docs / "study-methods.md").write_text("# Demo\n")
    (docs / "methods.md").write_text("# Methods\n")
    here = Here(inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(real_cosine, "STEPS", 20)
        carry_out(Study(inputs, here), docs)
    return here, docs


def test_rows_are_drawn_by_content_and_cover_the_tokens(inputs: Inputs) -> None:
    heldout = pq.read_table(inputs.heldout)
    assert len(set(heldout["sample_id"].to_pylist())) == heldout.num_rows > 5
    assert prepared(inputs.model.parent) == inputs


def test_models_that_several_methods_choose_are_scored_once(study: tuple[Here, Path]) -> None:
    here, docs = study
    rows = read_rows(docs / "study-real.csv")
    chosen = [row.variant for row in rows if not row.reason]
    assert len(here.scored) == len(set(here.scored)) < len(chosen)
    others = set(here.scored) - set(chosen)  # sets of the search that another one beats
    assert set(chosen) <= set(here.scored) and {v.weights for v in others} <= {RULES[0]}


def test_a_stopped_study_resumes(study: tuple[Here, Path], inputs: Inputs) -> None:
    here, docs = study
    page = (docs / "study-real.md").read_bytes()
    lost = here.scored[3]
    inputs.losses_file(lost).unlink()
    again = Here(inputs)
    carry_out(Study(inputs, again), docs)
    assert again.scored == [lost]
    assert (docs / "study-real.md").read_bytes() == page


def test_seconds_are_known_only_of_work_that_was_not_resumed(tmp_path: Path) -> None:
    for name, resumed in (("whole", False), ("resumed", True)):
        if resumed:
            real_bench.unfinished(tmp_path / name).mkdir()
        with real_bench.timed(tmp_path / name):
            pass
    assert real_bench.seconds(tmp_path / "whole") is not None
    assert real_bench.seconds(tmp_path / "resumed") is None


def test_losses_are_those_of_the_model_without_the_layers(
    study: tuple[Here, Path], inputs: Inputs
) -> None:
    bench = Bench(inputs)
    drop = next(variant.drop for variant in study[0].scored if len(variant.drop) == 2)
    losses = inputs.losses(Variant(drop))
    with bypassed(bench.model, list(drop)):
        rows = row_losses(bench.model, bench.rows)
    assert losses is not None
    assert losses.loss == pytest.approx([row.loss for row in rows])
    assert np.array_equal(losses.choices, [choice for row in rows for choice in row.choices])


def test_sparse_models_differ_and_leave_the_dense_one_as_it_was(
    study: tuple[Here, Path], inputs: Inputs
) -> None:
    dense = inputs.losses(Variant())
    wanda, magnitude = (inputs.losses(Variant((), name)) for name in ("wanda-2:4", "magnitude-2:4"))
    assert dense is not None and wanda is not None and magnitude is not None
    assert len({dense.mean, wanda.mean, magnitude.mean}) == 3
    rows = row_losses(real_bench._BENCH.model, real_bench._BENCH.rows)
    assert dense.loss == pytest.approx([row.loss for row in rows])


def test_methods_that_cannot_reach_a_ratio_say_why(study: tuple[Here, Path]) -> None:
    rows = read_rows(study[1] / "study-real.csv")
    reasons = {row.reason for row in rows if row.ratio == 0.1}
    assert len(reasons) == 1 and "drops none of 6 layers" in reasons.pop()
