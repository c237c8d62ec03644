"""Training, compensation and sparsity in a model card."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from report.cards import BOTH, card, manual
from report.report_cases import make_run, params, small_plan

from interlace.pruning.report import ExportReport, SparsityReport
from interlace.report.card.card import model_card
from interlace.report.card.recipe import training_text
from interlace.report.facts.run import Which
from interlace.report.page.run import run_page
from interlace.samples.own_answers import AnswerSheet


@pytest.mark.parametrize(
    ("recipe", "heal", "facts"),
    [
        ({}, {}, "1 epoch of 32 rows, AdamW, learning rate 1e-05, loss on the answers"),
        ({"max_steps": 1200, "lora_rank": 8}, {}, "1,200 steps of 32 rows, .*LoRA of rank 8"),
        ({"epochs": 2.5}, {"distill_logits": 1, "distill_states": 1}, "logits and anchors' hidden"),
        ({}, {"local_steps": 1500}, "1,500 steps of 32 rows layer by layer .*; then 1 epoch"),
        ({"max_steps": 0}, {}, "no update"),
    ],
)
def test_the_recipe_is_one_line(recipe: dict[str, Any], heal: dict[str, Any], facts: str) -> None:
    assert re.search(facts, training_text(make_run(params=params(finetune=recipe, heal=heal))))


def test_what_was_trained_beside_layers_is_named() -> None:
    trained = params(finetune={"also": ["lm_head", "projector"]})
    text, alone = card(params=trained), card(plan=manual([3], []), params=trained)
    assert "of the remaining layers, the projector and the output head were fine-tuned." in text
    assert "only the layers listed above, the projector and the output head: " in text
    assert "output head" not in card() and "only the layers listed above: " in card()
    assert "The projector and the output head were fine-tuned. Every other weight" in alone
    assert "only the projector and the output head: " in alone and "untuned" not in alone
    one = card(plan=manual([3], []), params=params(finetune={"also": ["projector"]}))
    assert "The projector was fine-tuned." in one


def test_a_checkpoint_of_which_nothing_was_tuned_claims_no_tuning() -> None:
    for which, plan in (("pruned", small_plan()), ("tuned", manual([3], []))):
        text = card(which, plan).split("## Reproduce it")[0]
        assert "Nothing was fine-tuned: every weight is the dense model's, bit for bit." in text
        assert not re.search(r"were fine-tuned|\| fine-tuning|Dense-FT|AdamW|datasets:", text)


CUTS = [
    {"cut": [2], "folded_into": 1, "residual_before": 0.25, "residual_after": 0.125},
    {"cut": [], "folded_into": 3, "residual_before": 0.2, "residual_after": 0.15},
    {"cut": [5], "folded_into": 4, "residual_before": 0.1, "residual_after": 0.1},
]


@pytest.mark.parametrize("which", BOTH)
def test_compensation_and_parity_are_reported(which: Which) -> None:
    exported = {
        "parity": {"samples": 4, "tokens": 1200, "greatest_difference": 0.0},
        "compensation": {
            "method": "least-squares",
            "cuts": [cut | {"heldout_before": 3.0, "kept": cut["cut"] != [5]} for cut in CUTS],
        },
    }
    text = card(which, exported=ExportReport.model_validate(exported))
    assert (
        "least-squares: 2 folded into 1 (residual 0.25 to 0.125); 5 not folded: no help; later"
        in text
    )
    assert "bit for bit, on 4 samples of 1,200 tokens" in text
    assert not re.search(r"every (other )?weight", text, re.IGNORECASE)


@pytest.mark.parametrize("which", BOTH)
def test_layers_healed_between_rounds_are_reported(which: Which) -> None:
    exported = {
        "healed": {"rounds": 2, "steps": 1500, "layers": [2, 3, 7]},
        "parity": {"samples": 4, "tokens": 1200, "greatest_difference": 0.0},
    }
    text = card(which, exported=ExportReport.model_validate(exported))
    assert "| healed between rounds | layers 2, 3, 7: 2 times 1,500 steps of 32 rows" in text
    assert "without the dropped layers and with the healed ones, bit for bit" in text
    assert not re.search(r"every (other )?weight", text, re.IGNORECASE)


def test_a_sparse_checkpoint_is_promised_no_speed() -> None:
    exported = ExportReport(sparsity=SparsityReport(method="wanda-2:4", tensors=42))
    text = card("pruned", manual([], []), exported=exported, ttft={})
    assert "two of every four weights" in text
    assert "| sparsity | wanda-2:4: 42 weight matrices |" in text.splitlines()
    assert "fast" not in text.split("## Reproduce it")[0]


@pytest.mark.parametrize(
    ("sheet", "words"),
    [
        (AnswerSheet("labels"), "the data's own"),
        (
            AnswerSheet("dense", None, 512, 0.0, prompts=1200, rows=1000, answers=1500, cut=31),
            "the dense model's own, greedy: 1,000 rows of 1,200 prompts, 31 (3.1%) cut at 512"
            " tokens",
        ),
        (
            AnswerSheet("dense", "org/m", 9, 0.7, prompts=4, rows=4, answers=4),
            "the dense model's own, served as org/m, sampled at temperature 0.7: 4 rows",
        ),
    ],
    ids=["labels", "greedy", "served"],
)
def test_the_card_and_the_page_say_whose_answers_were_trained_on(
    sheet: AnswerSheet, words: str
) -> None:
    run = make_run(trained_on=sheet)
    assert f"| answers trained on | {words}" in model_card(run, "tuned")
    assert "answers trained on" not in model_card(run, "pruned")
    page = re.sub(r"<[^>]+>", " ", html.unescape(run_page(run, [], plan_digest="0")))
    assert re.search(rf"answers trained on\s+{re.escape(words)}", page)
