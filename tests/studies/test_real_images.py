"""The study with images judges each model once, by loss and by exact answers, and resumes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import family_processors
import models
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.model.generation import AnswerGenerator
from interlace.model.row_losses import prompt_of
from interlace.params.inputs import Probes
from interlace.samples.rows import iterate
from studies import real_bench, real_images_healing
from studies.real_bench import Inputs
from studies.real_images import ImageStudy, carry_out, prepare_images
from studies.real_images_healed import FIGURE
from studies.real_images_healing import STARTS, WAYS, judge, labels, validation
from studies.real_images_page import NAME
from studies.real_images_rows import (
    Heldout,
    ImageRow,
    contrasts,
    exact_answers,
    judged,
    read_heldout,
)
from studies.real_images_sinks import FIRST, IMAGE, SinkRow, token_kinds
from studies.real_losses import HeldoutLosses
from studies.real_page import WITH_IMAGES, _rewrite
from studies.real_rows import Variant, read_rows

TOKENS = {
    "heldout_tokens": 40,
    "calibration_tokens": 90,
    "loss_tokens": 10,
    "search_tokens": 20,
    "fitted_tokens": 40,
}
SOURCES = ("digit_sum", "digit_read")  # math, and not
PROBES = Probes(per_task=2, math_sources=SOURCES[:1], nonmath_sources=SOURCES[1:])


def rows(seeds: Sequence[int]) -> list[dict[str, Any]]:
    made = [models.row(n, images=min(n % 4, 1), turns=1 + n % 2) for n in seeds]
    return [row | {"source": SOURCES[n // 4 % 2]} for n, row in zip(seeds, made, strict=True)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("images")
    family_processors.save("idefics3", folder / "model")
    for name, seeds in (("train", range(90)), ("test", range(100, 140))):
        pq.write_table(pa.Table.from_pylist(rows(seeds)), folder / f"{name}.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(real_images_healing, "STEPS", 2)
        patch.setattr(real_images_healing, "VALIDATION", 3)
        return prepare_images(folder / "model", folder, folder / "scratch", TOKENS, PROBES)


def is_healed(variant: Variant) -> bool:
    return variant.weights.startswith(tuple(WAYS))


class Here:
    """Stands for the processes: does everything at once, in this one."""

    def __init__(self, inputs: Inputs) -> None:
        real_bench.begin(inputs)
        self.done: list[Variant] = []

    def submit(self, function: Any, *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(result := function(*arguments))
        if function is real_bench.score:
            self.done.append(result)
        if function is judge:
            self.done.append(result.variant)
        return future


@pytest.fixture(scope="module")
def study(inputs: Inputs) -> Any:
    """A finished study on a random model of six layers."""
    docs = inputs.scratch / "docs"
    docs.mkdir()
    (docs / "study-real.md").write_text("# Real\n\n## Rise\n\nrows\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(real_images_healing, "STEPS", 2)
        here = Here(inputs)
        carry_out(ImageStudy(inputs, here), docs)
        yield here, docs


@pytest.mark.slow
def test_methods_on_probes_are_compared_too(study: Any) -> None:
    found = read_rows(study[1] / f"{NAME}.csv", ImageRow)
    chosen = {row.method for row in found if row.rise is not None}
    assert {"interlace", "math-aware", "nonmath-aware", "mixed", "cka", "search"} <= chosen


@pytest.mark.slow
def test_choices_are_healed_in_all_ways(study: Any) -> None:
    found = read_rows(study[1] / f"{NAME}.csv", ImageRow)
    plans = {(row.method, row.ratio, row.protect) for row in found if row.weights in WAYS}
    healed = [row for row in found if row.weights in WAYS and row.exact is not None]
    assert plans and len(healed) == len(plans) * len(WAYS)
    assert {row.protect for row in healed} == {"none", "auto"}
    assert len({row.rise for row in healed}) >= len(WAYS)
    text = (study[1] / "study-real.md").read_text()
    assert "### Healing with images" in text and (study[1] / FIGURE).stat().st_size > 1000


@pytest.mark.slow
def test_each_way_has_the_learning_rate_of_least_validation_loss(study: Any) -> None:
    found = read_rows(study[1] / f"{NAME}.csv", ImageRow)
    for name, way in WAYS.items():
        tried = [row for row in found if row.weights == name and row.validation is not None]
        assert {row.rate for row in tried} == {*way.rates}
        best = min(tried, key=lambda row: (row.validation, row.rate))
        judged_rates = {row.rate for row in found if row.weights == name and row.exact is not None}
        assert judged_rates == {best.rate}


@pytest.mark.slow
def test_what_is_not_trained_is_validated_too(study: Any) -> None:
    found = read_rows(study[1] / f"{NAME}.csv", ImageRow)
    starts = [row for row in found if row.weights in STARTS and row.validation is not None]
    assert {row.weights for row in starts} == {*STARTS}
    assert all(row.rate == 0 and row.exact is not None for row in starts)


@pytest.mark.slow
def test_healed_models_do_not_stay(study: Any, inputs: Inputs) -> None:
    assert not [*(inputs.scratch / "tuned").iterdir()]
    assert not [*inputs.scratch.glob("work-*")]


@pytest.mark.slow
def test_rows_to_heal_on_choose_no_layers(inputs: Inputs, study: Any) -> None:
    tuned, validated, chosen, judged_on = (
        {row["sample_id"] for row in iterate(folder)}
        for folder in (labels(inputs), validation(inputs), inputs.calibration, inputs.heldout)
    )
    assert (len(tuned), len(validated)) == (2 * real_images_healing.BATCH, 3)
    assert len(tuned | validated | chosen | judged_on) == sum(
        map(len, (tuned, validated, chosen, judged_on))
    )


@pytest.mark.slow
def test_a_stopped_study_resumes(study: Any, inputs: Inputs) -> None:
    here, docs = study
    before = {path.name: path.read_bytes() for path in docs.iterdir()}
    lost = [here.done[2], next(one for one in here.done if is_healed(one))]
    for variant in lost:
        inputs.losses_file(variant).unlink()
    again = Here(inputs)
    carry_out(ImageStudy(inputs, again), docs)
    assert set(lost) <= set(again.done)
    assert len([one for one in again.done if not is_healed(one)]) == 1
    assert {path.name: path.read_bytes() for path in docs.iterdir()} == before


@pytest.mark.slow
def test_the_section_is_kept_by_the_study_without_images(study: Any, tmp_path: Path) -> None:
    text = (study[1] / "study-real.md").read_text()
    assert text.startswith("# Real\n") and "\n## Rise\n\nrows\n" in text
    (tmp_path / "page.md").write_text(text)
    _rewrite(tmp_path / "page.md", "# Real\n\n## Rise\n\nother rows\n")
    renewed = (tmp_path / "page.md").read_text()
    assert renewed == text.replace("\nrows\n", "\nother rows\n")
    assert renewed.count(f"\n{WITH_IMAGES}\n") == 1


@pytest.mark.slow
def test_greedy_answers_are_right_where_the_likeliest_tokens_are(inputs: Inputs) -> None:
    bench = real_bench.Bench(inputs)
    bench.score(Variant())
    losses = inputs.losses(Variant())
    heldout = read_heldout(inputs.heldout, bench.processor)
    assert losses is not None and [len(one) for one in heldout.answers] == [*losses.n_tokens]
    generator = AnswerGenerator(bench.model, bench.processor)
    answers = []  # what the model itself answers, as if that were true
    for example, n in zip(bench.rows, heldout.last, strict=True):
        (made,) = generator.generate([prompt_of(example)], n)
        answers.append(np.array(made, np.int32))
    true = [one[-n:] for one, n in zip(heldout.answers, heldout.last, strict=True)]
    expected = [100.0 * np.array_equal(*pair) for pair in zip(answers, true, strict=True)]
    assert exact_answers(losses, heldout).tolist() == expected


@pytest.mark.slow
def test_sinks_are_told_apart_by_images(study: Any, inputs: Inputs) -> None:
    found = read_rows(study[1] / f"{NAME}-sinks.csv", SinkRow)
    assert {(row.layer, row.with_image) for row in found} == {
        (layer, image) for layer in range(inputs.n_layers) for image in (True, False)
    }
    for row in found:
        assert row.first + row.image + row.other == pytest.approx(100, abs=0.01)
        assert row.with_image or row.image == 0
    processor = Checkpoint(inputs.model).open_processor()
    kinds = [token_kinds(processor, row) for row in iterate(inputs.calibration)]
    assert all(one[0] == FIRST for one in kinds)
    assert {one.count(IMAGE) > 0 for one in kinds} == {True, False}


HELDOUT = Heldout(
    answers=[np.array(one, np.int32) for one in ([1, 2, 9], [3, 9], [4, 9, 5, 9], [6, 9])],
    last=[3, 2, 2, 2],
    is_math=np.array([True, True, False, False]),
    sources=["digit_sum"] * 2 + ["digit_read"] * 2,
)
RIGHT = [1, 2, 9, 3, 9, 4, 9, 5, 9, 6, 9]


def losses(*wrong: int, loss: float = 1.0) -> HeldoutLosses:
    """Losses of a model that has these answer tokens wrong."""
    choices = [0 if n in wrong else token for n, token in enumerate(RIGHT)]
    counts = np.array([len(one) for one in HELDOUT.answers])
    return HeldoutLosses(loss * counts, counts, np.array(choices, np.int32))


def test_an_answer_is_exact_if_all_of_its_tokens_are_right() -> None:
    assert exact_answers(losses(), HELDOUT).tolist() == [100, 100, 100, 100]
    assert exact_answers(losses(1, 4, 5), HELDOUT).tolist() == [0, 0, 100, 100]  # 5: a first turn
    assert exact_answers(losses(7), HELDOUT).tolist() == [100, 100, 0, 100]


def test_models_are_judged_beside_the_dense_one() -> None:
    models_by_variant = {Variant(): losses(), Variant((1,)): losses(1, 7, loss=1.5)}
    made = [ImageRow("dense", 0.0), ImageRow("a", 0.25, dropped=(1,)), ImageRow("b", 0.25)]
    made[2] = ImageRow("b", 0.25, reason="none")
    dense, one, none = judged(made, models_by_variant, HELDOUT)
    assert (dense.exact, dense.rise, none.exact) == (100, 0, None)
    assert (one.exact, one.math, one.other) == (50, 50, 50)
    assert one.rise == pytest.approx(0.5)
    changes = np.array([-100.0, 0, -100, 0])
    assert one.exact_error == pytest.approx(changes.std(ddof=1) / 2)


def test_methods_are_contrasted_on_the_same_rows() -> None:
    made = [ImageRow("a", 0.25, dropped=(1,)), ImageRow("b", 0.25, dropped=(2,))]
    made += [ImageRow("random", 0.25, seed=n, dropped=(3 + n,)) for n in (0, 1)]
    made.append(ImageRow("a", 0.25, "auto", dropped=(4,)))
    by_variant = dict(
        zip((Variant((n,)) for n in (1, 2, 3, 4)), map(losses, (1, 7, 1, 4)), strict=True)
    )
    pairs = [("a", "b"), ("a", "random"), ("a", "gone")]
    found = {(c.second, c.kind): c for c in contrasts(made, by_variant, HELDOUT, pairs)}
    assert [(k, c.value) for k, c in found.items()] == [
        (("b", "math"), -50),
        (("b", "other"), 50),
        (("random", "math"), 0),
        (("random", "other"), 0),
    ]
    over_rows = np.array([-50.0, 50]).std(ddof=1) / np.sqrt(2)
    assert found["random", "math"].error == pytest.approx(over_rows)
    assert found["b", "math"].error == pytest.approx(50)
