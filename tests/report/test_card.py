from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from report.report_cases import TTFT, evaluations, full_scores, small_plan

from interlace.plan import Decision, Plan, select
from interlace.report.card import model_card
from interlace.report.summary import left_out, summarise

PARAMS = {"ratio": 0.25, "method": "interlace", "finetune": {"learning_rate": 1e-5}}


CHECKED = {"samples": 4, "tokens": 1234, "layers": 7, "dtype": "float32"}


def card(
    base_model: str = "Qwen/Qwen3-VL-8B-Instruct",
    plan: Plan | None = None,
    params: Any = PARAMS,
    parity: Any = CHECKED,
) -> str:
    plan = (plan or small_plan()).model_copy(update={"deepstack_layers": 3})
    summary = summarise(evaluations(), TTFT, plan, parameters_before=1000, parameters_after=800)
    return model_card(
        name="Qwen3-VL-8B-interlace",
        base_model=base_model,
        summary=summary,
        plan=plan,
        params=params,
        left_out=left_out(evaluations()),
        parity=parity,
    )


def test_the_hub_reads_the_metadata() -> None:
    data = ModelCard(card()).data
    assert data.base_model == "Qwen/Qwen3-VL-8B-Instruct"
    assert (data.library_name, data.pipeline_tag) == ("transformers", "image-text-to-text")
    results = {result.dataset_name: result.metric_value for result in data.eval_results}
    assert results == {"AI2D": 72.0, "ChartQA": 50.0}


def test_the_card_says_what_the_export_was_compared_on() -> None:
    assert "bit for bit, on 4 samples (1,234 tokens, float32)" in card()
    assert "not compared with the dense model" not in card()
    assert "- before tuning: not compared with the dense model" in card(parity={"samples": 0})


def test_the_card_says_when_weights_were_converted() -> None:
    assert "dense model's, bit for bit." in card()
    converted = card(params=PARAMS | {"export": {"dtype": "float16"}}, parity={"samples": 0})
    assert "dense model's, stored as float16." in converted
    assert "bit for bit" not in converted


def test_the_plan_and_the_parameters_can_be_read_back() -> None:
    text = card()
    plan = re.search(r"```json\n(.*?)\n```", text, re.DOTALL)
    params = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert plan and Plan.model_validate_json(plan[1]).groups == small_plan().groups
    assert params and yaml.safe_load(params[1]) == PARAMS


@pytest.mark.parametrize(
    "line",
    [
        "| dropped | 2, 5 |",
        "| tuned | 1, 6 |",
        "| frozen | 0, 3, 4, 7, 8 |",
        "| AI2D | 80.0 | 40.0 | 72.0 | 50.0% | 90.0% |",
        "| **mean** | 65.0 | 30.0 | 61.0 | 45.0% | 95.0% |",
        "- MIA-Bench: no judge is configured",
        "- parameters: 1,000 before, 800 after (-20.0%)",
    ],
)
def test_the_card_says(line: str) -> None:
    assert line in card().splitlines()


def test_the_reference_is_named_and_linked() -> None:
    assert "relative to the dense model, Qwen/Qwen3-VL-8B-Instruct" in card()
    assert "(https://huggingface.co/Qwen/Qwen3-VL-8B-Instruct)" in card()


def test_a_local_base_model_is_written_as_given() -> None:
    text = card("data/demo/model")
    assert ModelCard(text).data.base_model == "data/demo/model"
    assert "huggingface.co" not in text


def test_the_same_run_gives_the_same_card() -> None:
    assert card() == card()


def test_without_scores_there_is_still_a_card() -> None:
    results = evaluations()
    for result in results.values():
        result["scores"] = {}
    summary = summarise(results, {}, small_plan(), parameters_before=10, parameters_after=8)
    text = model_card(
        name="m", base_model="org/m", summary=summary, plan=small_plan(), params=PARAMS
    )
    assert ModelCard(text).data.eval_results is None


def test_the_card_says_what_the_method_was_told_and_why_layers_are_protected() -> None:
    text = card(plan=select(full_scores(24, 3), method="mixed", alpha=0.4))
    assert "mixed: 25% of 20 prunable layers, alpha 0.4. Positions in the dense decoder" in text
    assert "\n- 4 protected: 0 to 2 (image features are added after them) and 23 (its" in text


def test_the_card_gives_a_budgets_reason() -> None:
    decision = Decision(
        budget="params", target=0.8, drops=4, values={}, how="exact", reason="the fewest layers"
    )
    text = card(plan=select(full_scores(), ratio="auto", decision=decision))
    assert "\n- ratio = auto: the fewest layers\n" in text


def test_the_card_of_a_model_that_lost_no_layer_says_so() -> None:
    text = " ".join(card(plan=select(full_scores(), method="dense-ft")).split())
    assert "with all of its 24 decoder layers, 6 of them fine-tuned" in text
    assert "| dropped | none |" in text and "without" not in text
