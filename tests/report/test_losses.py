"""The loss on held-out answers in the summary, the terminal, the page's table and the cards."""

from __future__ import annotations

from typing import Any

import pytest
from evaluation.answer_rows import answers, measured
from report.report_cases import make_run, shown, summary_of
from rich.cells import cell_len

from interlace.evaluation.scores.losses import loss_rise
from interlace.report.card.card import model_card
from interlace.report.facts.losses import loss_numbers, loss_table, rise_text
from interlace.report.page.run import run_page
from interlace.report.terminal.summary import summary_table

SAME = [[1], [1, 1]]
ANSWERS = {
    "dense": measured([0.5, 1.0], [1, 2], "a") + measured([3.0], [3], "b"),
    "dense_ft": measured([0.5, 0.7], [1, 2], "a") + measured([3.0], [3], "b"),
    "pruned": measured([1.5, 2.0], [1, 2], "a", choices=[[1], [1, 9]])
    + measured([4.5], [3], "b", choices=[[9, 9, 1]]),
    "tuned": measured([0.5, 1.1], [1, 2], "a") + measured([3.5], [3], "b"),
}


def test_the_summary_has_losses_rises_and_agreements_of_all_models() -> None:
    numbers = loss_numbers(ANSWERS)
    assert numbers["loss_dense"] == pytest.approx(4.5 / 6)
    assert numbers["loss_pruned"] == pytest.approx(8 / 6)
    assert numbers["loss_rise_pruned"] == pytest.approx(3.5 / 6)
    assert numbers["loss_rise_tuned"] == pytest.approx(0.6 / 6)
    assert numbers["loss_rise_dense_ft"] == pytest.approx(-0.3 / 6)
    rise = loss_rise(ANSWERS["dense"], ANSWERS["pruned"])
    assert rise and numbers["loss_rise_pruned_error"] == rise.standard_error
    assert numbers["agreement_pruned"] == pytest.approx(50)
    assert numbers["agreement_tuned"] == 100 and numbers["agreement_tuned_error"] == 0
    assert numbers["loss_tokens"] == 6
    assert not {"loss_rise_dense", "agreement_dense"} & set(numbers)
    assert all(isinstance(value, int | float) for value in numbers.values())


def test_answers_without_losses_give_no_numbers() -> None:
    unmeasured = {model: answers([1, 0]) for model in ANSWERS}
    assert loss_numbers(unmeasured) == {} == loss_numbers({})
    assert loss_table(unmeasured).rows == [] == loss_table({}).rows


def test_the_table_has_a_row_by_source_and_one_over_all() -> None:
    three = {model: rows for model, rows in ANSWERS.items() if model != "dense_ft"}
    table = loss_table(three)
    rises = ["pruned, rise", "tuned, rise"]
    assert table.headings == [
        "source", "tokens", "dense", *rises, "pruned, agreement", "tuned, agreement"
    ]  # fmt: skip
    assert [row[:2] for row in table.rows] == [["a", "3"], ["b", "3"], ["all", "6"]]
    assert table.rows[1] == ["b", "3", "1.000", "+0.500", "+0.167", "33.3%", "100.0%"]
    assert table.rows[0][3].startswith("+0.667 ± 0.")
    assert table.rows[2][5:] == ["50.0%", "100.0%"]


@pytest.mark.parametrize("width", [40, 80])
def test_the_terminal_shows_losses_rises_and_agreement(width: int) -> None:
    summary: Any = summary_of() | {"score_dense_ft": 65.0} | loss_numbers(ANSWERS)
    text = shown(summary_table(summary), 200)
    assert "dense 0.750, pruned 1.333, tuned 0.850, dense-ft 0.700 nats per answer token" in text
    assert "pruned +0.583 ± 0." in text and "dense-ft -0.050 ± 0." in text
    assert "with dense's first choice: pruned 50.0%, tuned 100.0%" in text
    narrow = shown(summary_table(summary), width).splitlines()
    facts = narrow[next(i for i, line in enumerate(narrow) if line.startswith("layers")) :]
    assert max(cell_len(line.rstrip()) for line in facts) <= width
    assert "loss" not in shown(summary_table(summary_of()))


def test_a_rise_of_nothing_has_no_minus() -> None:
    assert rise_text({"loss_rise_tuned": -0.0002}, "tuned") == "+0.000"


def test_the_page_and_the_cards_show_the_loss() -> None:
    run = make_run(summary=summary_of() | loss_numbers(ANSWERS))
    page = run_page(run, [], plan_digest="", losses=loss_table(ANSWERS))
    assert "nats per token" in page and "pruned, agreement" in page
    assert "nats per token" not in run_page(run, [], plan_digest="")
    card = model_card(run, "pruned")
    assert "| loss on held-out answers, nats per token | 0.750 | 1.333 (+0.583 ± 0." in card
    assert "| tokens with the dense model's first choice |  | 50.0% |" in card
    assert "nats per token" not in model_card(make_run(), "pruned")
