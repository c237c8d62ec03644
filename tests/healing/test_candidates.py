"""Candidates are healed once each by the recipe, and judged on rows they are not healed on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import answered_samples
import models
import pytest
import torch
from answered_samples import slow_loss
from interruptions import interrupt
from plans import make_plan
from training_runs import RECIPE

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.healing import candidates
from interlace.healing.candidates import (
    candidate_options,
    candidate_recipe,
    heal_candidates,
)
from interlace.healing.heal import heal_checkpoint
from interlace.model.chat import collate, encode_training
from interlace.params.candidates import CandidatesParams
from interlace.params.choosing import Select
from interlace.params.exporting import Export
from interlace.params.healing import Heal, Recipe
from interlace.params.measuring import Measure
from interlace.plan.candidates import Losses
from interlace.plan.record import Plan
from interlace.pruning.dense import Dense
from interlace.pruning.export import export_checkpoint
from interlace.samples.rows import iterate

PLANS = [make_plan([3, 5], [2, 4]), make_plan([2, 5], [3, 4]), make_plan([2, 3], [1, 4])]
Run = Callable[..., list[Losses]]


def params_of(**changes: Any) -> CandidatesParams:
    select = {"candidates": 2, "candidate_steps": 2, "candidate_rows": 5}
    sections = {"dtype": "float32", "finetune": Recipe(**RECIPE), "select": Select(**select)}
    return CandidatesParams(**(sections | changes))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Training rows, and the half of them that calibrates."""
    folder, of_set = tmp_path_factory.mktemp("rows"), models.rows(24)
    for name, share in (("train", of_set), ("calibration", of_set[:12])):
        answered_samples.calibration(folder / name, share)
    return folder / "train", folder / "calibration"


@pytest.fixture
def run(dense_dir: Path, rows: tuple[Path, Path], tmp_path: Path) -> Run:
    """Heals plans; the scratch folder is `tmp_path / "scratch"`."""

    def run(plans: list[Plan], **changes: Any) -> list[Losses]:
        params, (train, calibration) = params_of(**changes), rows
        dense = Dense(Checkpoint(dense_dir), calibration, params.answer_options)
        scratch = tmp_path / "scratch"
        return heal_candidates(dense, plans, train, params=params, scratch=scratch)

    return run


def slow_losses(folder: Path, validation: Path) -> list[float]:
    """The loss of each row, one by one, in nats."""
    checkpoint = Checkpoint(folder)
    model, processor = checkpoint.open_model(dtype="float32"), checkpoint.open_processor()
    losses = []
    for row in iterate(validation):
        with torch.inference_mode():
            batch = collate([encode_training(processor, row)], pad_token_id=0)
            losses.append(slow_loss(model, batch).item())
    return losses


def test_losses_are_those_of_the_plans_checkpoint_and_of_the_healed_one(
    run: Run, dense_dir: Path, tmp_path: Path
) -> None:
    losses = run(PLANS[:1])[0]
    healing, validation = (tmp_path / "scratch" / name for name in ("healing", "validation"))
    pruned, tuned = tmp_path / "pruned", tmp_path / "tuned"
    export_checkpoint(dense_dir, PLANS[0], pruned)
    heal_checkpoint(
        *(Checkpoint(dense_dir), Checkpoint(pruned), healing, tuned),
        (tmp_path / "local.csv", tmp_path / "loss.csv"),
        plan=PLANS[0],
        params=candidate_recipe(params_of()),
        seed=0,
        scratch=tmp_path / "training",
    )
    assert losses.before == pytest.approx(slow_losses(pruned, validation), rel=1e-4)
    assert losses.after == pytest.approx(slow_losses(tuned, validation), rel=1e-4)
    assert losses.before != losses.after and len(losses.tokens) == 5
    ids = [{row["sample_id"] for row in iterate(folder)} for folder in (healing, validation)]
    assert len(ids[0]) == 2 * RECIPE["batch_size"] and not ids[0] & ids[1]


def test_a_known_plan_is_not_healed_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = interrupt(monkeypatch, candidates, name="heal_checkpoint")
    first = run(PLANS[:2])
    assert len(calls) == 2
    assert run([PLANS[2], *PLANS[1::-1]])[1:] == first[::-1]
    assert len(calls) == 3


def test_an_interrupted_trial_resumes_with_its_last_plan(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        calls = interrupt(patch, candidates, call=3, name="row_losses")  # two of each plan
        with pytest.raises(KeyboardInterrupt):
            run(PLANS[:2])
    exports = interrupt(monkeypatch, candidates, name="export_checkpoint")
    assert len(calls) == 3 and len(run(PLANS[:2])) == 2
    assert not exports
    assert {path.name for path in (tmp_path / "scratch").iterdir() if path.is_dir()} == {
        "healing",
        "validation",
    }


def test_candidates_are_compensated_where_the_export_is(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = interrupt(monkeypatch, candidates, name="export_checkpoint")
    plain = run(PLANS[:1])
    remedy = Export(compensate="lstsq", compensate_samples=12)
    monkeypatch.setattr(candidates, "candidate_name", lambda plan: "compensated")
    compensated = run(PLANS[:1], export=remedy)
    assert len(calls) == 2
    assert sum(compensated[0].before) < sum(plain[0].before)


def test_a_plan_that_tunes_nothing_is_judged_as_it_is(run: Run) -> None:
    (losses,) = run([make_plan([2, 4], [])])
    assert losses.before == losses.after


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"max_steps": -1}, (7, 0)),
        ({"max_steps": 500, "local_steps": 90}, (7, 7)),
        ({"max_steps": 0, "local_steps": 90}, (0, 7)),
    ],
)
def test_each_part_of_the_recipe_is_as_long_as_the_steps(
    changes: dict[str, int], steps: tuple[int, int]
) -> None:
    heal_options = Heal(local_steps=changes.pop("local_steps", 0))
    params = params_of(
        finetune=Recipe(**(RECIPE | changes)),
        heal=heal_options,
        select=Select(candidates=2, candidate_steps=7),
    )
    recipe = candidate_recipe(params)
    assert (recipe.max_steps, recipe.local_steps) == steps
    assert recipe.learning_rate == RECIPE["learning_rate"]


@pytest.mark.parametrize(
    ("changes", "shared"),
    [
        ({"ratio": 0.5}, True),
        ({"method": "shortgpt"}, True),
        ({"select": Select(candidates=9, candidate_steps=2, candidate_rows=5)}, True),
        ({"export": Export(parity_samples=9)}, True),
        ({"select": Select(candidates=2, candidate_steps=3, candidate_rows=5)}, False),
        ({"select": Select(candidates=2, candidate_steps=2, candidate_rows=6)}, False),
        ({"export": Export(compensate="lstsq")}, False),
        ({"heal": Heal(local_steps=5)}, False),
        ({"seed": 1}, False),
    ],
)
def test_experiments_share_losses_unless_healing_differs(
    changes: dict[str, Any], shared: bool
) -> None:
    same = candidate_options(params_of(**changes)) == candidate_options(params_of())
    assert same == shared


def test_rows_that_cannot_judge_are_named(
    run: Run, rows: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = dict.fromkeys(range(5), "no image")
    monkeypatch.setattr(candidates, "encode_rows", lambda *_, **__: ({}, reasons))
    with pytest.raises(InputError, match=r"none of 5 training rows can judge: no image; repair"):
        run(PLANS[:1], measure=Measure(batch_tokens=9))
