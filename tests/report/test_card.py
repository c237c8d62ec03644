"""Layers, scores and speed in a model card, for the hub and for people."""

from __future__ import annotations

import re
from typing import Any

import pytest
from huggingface_hub import ModelCard
from report.cards import BOTH, LOCAL, NONE, PLANS, card, manual
from report.report_cases import (
    SOURCES,
    UNSURE,
    change_scores,
    evaluations,
    params,
    without_scores,
)

from interlace.evaluation.scores.result import Evaluation
from interlace.model.kinds import LayerKinds
from interlace.plan.record import Plan
from interlace.pruning.report import ExportReport, ParityReport
from interlace.report.facts.run import Which
from interlace.system.documents import parse_yaml


@pytest.fixture(params=PLANS)
def plan(request: pytest.FixtureRequest) -> Plan:
    return PLANS[request.param]()


@pytest.mark.parametrize("which", BOTH)
def test_the_hub_reads_the_base_the_data_and_the_scores(plan: Plan, which: Which) -> None:
    data = ModelCard(card(which, plan)).data
    assert data.base_model == "Qwen/Qwen3-VL-8B-Instruct"
    assert data.base_model_relation == "finetune"
    trained = which == "tuned" and plan.tune
    assert data.datasets == (["HuggingFaceM4/FineVision"] if trained else None)
    assert (data.library_name, data.pipeline_tag) == ("transformers", "image-text-to-text")
    assert {
        result.dataset_name: (result.metric_value, result.metric_args)
        for result in data.eval_results
    } == {
        name: (score.score, {"samples": 100, "standard_error": 1.5})
        for name, score in evaluations()[which].scores.items()
    }


def test_the_plan_and_the_parameters_can_be_read_back(plan: Plan) -> None:
    text = card("tuned", plan)
    record = re.search(r"```json\n(.*?)\n```", text, re.DOTALL)
    assert record and Plan.model_validate_json(record[1]) == plan
    pinned = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    expected = params().model_dump(mode="json", exclude={"launch": True, "evaluate": {"judge"}})
    for name in ("model", "data"):
        expected[name]["revision"] = getattr(SOURCES, name).revision
    expected["evaluate"]["judge"] = {"model": None, "key_variable": None}
    del expected["answers"]["endpoint"]["url"]  # as the judge's, of one machine
    expected["evaluate"]["endpoint"] = {"key_variable": None}
    del expected["evaluate"]["vllm"]["command"]
    assert pinned and parse_yaml(pinned[1], "card") == expected


def changed(*models: str, **changes: Any) -> dict[str, Evaluation]:
    """The evaluations, with other scores of AI2D and ChartQA in some models."""
    results = evaluations()
    for model in models or tuple(results):
        change_scores(results[model], "AI2D", "ChartQA", **changes)
    return results


UNCHECKED = ExportReport(parity=ParityReport(samples=0))
DATA = "[HuggingFaceM4/FineVision](https://huggingface.co/HuggingFaceM4/FineVision)"


@pytest.mark.parametrize(
    ("which", "changes", "facts"),
    [
        (
            "tuned",
            {},
            [
                "# Qwen3-VL-8B-Instruct-interlace-25\n",
                "| decoder layers | 9 | 7 |",
                "| parameters | 1.00K | 800 (-20.0%) |",
                "| mean score, 2 benchmarks | 65.0 | 61.0 |",
                "| of the dense model's |  | 95.0% |",
                "| time to first token | 34.0 ms | 27.2 ms (1.25x) |",
                "| dropped | 2, 5 |",
                "| fine-tuned | 1, 6 |",
                "| frozen | 0, 3, 4, 7, 8 |",
                "| AI2D | 100 | 80.0 ± 1.5 | 40.0 ± 1.5 | 72.0 ± 1.5 | 90.0% |",
                f"| POPE | 100 | 90.0 ± 1.5 | 81.0 ± 1.5 | {NONE} | {NONE} |",
                "| **mean** |  | **65.0 ± 1.1** | **30.0 ± 1.1** | **61.0 ± 1.1** | **95.0%** |",
                "- MIA-Bench: no judge is configured",
                f"| data | 1% of {DATA}, revision `c1a2b3d`: 240,000 rows |",
                "| calibration | 24,000 rows, drawn from the data |",
                "1.21x to 1.29x; 1.28x by FLOPs",
                "40 paired requests, batch size 1, on a CPU with 2 threads",
            ],
        ),
        (
            "pruned",
            {},
            [
                "# Qwen3-VL-8B-Instruct-interlace-25-untuned\n",
                "| mean score, 2 benchmarks | 65.0 | 30.0 |",
                "| kept | 0, 1, 3, 4, 6, 7, 8 |",
                "| AI2D | 100 | 80.0 ± 1.5 | 40.0 ± 1.5 | 50.0% |",
                "Measured on the tuned checkpoint",
            ],
        ),
        ("tuned", {"sources": LOCAL}, [f"| `data/demo/model`, sha256 `{'ab' * 8}` |"]),
        ("tuned", {"exported": UNCHECKED}, ["not checked against the dense model"]),
    ],
)
def test_the_card_holds_layers_scores_and_sources(
    which: Which, changes: dict[str, Any], facts: list[str]
) -> None:
    text = card(which, **changes)
    assert [fact for fact in facts if fact not in text] == []


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"sources": LOCAL}, "huggingface.co"),
        ({"params": params(export={"dtype": "bfloat16"})}, "bit for bit"),
        ({"evaluations": changed("dense", score=0.0)}, "of the dense model's"),
    ],
)
def test_the_card_claims_nothing_that_does_not_hold(changes: dict[str, Any], claim: str) -> None:
    assert claim in card() and claim not in card(**changes)


def test_the_fine_tuned_dense_model_is_not_called_pruned() -> None:
    text = card("tuned", PLANS["dense-ft"]())
    assert "This model is Dense-FT" in text and "Dense-FT" in card()
    assert "| dropped | none |" in text and "without" not in text.split("## Layers")[0]


@pytest.mark.parametrize("which", BOTH)
def test_an_uncertain_speedup_is_not_given_but_its_interval(which: Which) -> None:
    text = card(which, ttft=UNSURE)
    assert UNSURE["ttft_speedup_refused"] in text and "27.2 ms" in text
    assert "1.25x" not in text and "a speedup of" not in text


@pytest.mark.parametrize("which", BOTH)
def test_without_measurements_the_card_says_so(which: Which) -> None:
    text = card(which, evaluations=without_scores(), ttft={})
    assert text.count("\n\nNot measured.") == 2
    assert ModelCard(text).data.eval_results is None
    assert "mean score" not in text and "of the dense model's" not in text


def test_a_score_without_an_error_is_written_alone() -> None:
    text = card(evaluations=changed(standard_error=None))
    assert "| AI2D | 100 | 80.0 | 40.0 | 72.0 | 90.0% |" in text
    assert ModelCard(text).data.eval_results[0].metric_args == {"samples": 100}


def test_cells_are_empty_and_counts_a_range_where_models_differ() -> None:
    results = changed("dense", n=3088)
    results["tuned"].scores["DocVQA"] = results["dense"].scores["AI2D"]
    text = card("pruned", evaluations=results)
    assert f"| DocVQA | {NONE} | {NONE} | {NONE} | {NONE} |" in text
    assert "| AI2D | 100 to 3,088 | 80.0" in text


def test_settings_notes_and_calibration_are_the_methods() -> None:
    text = card(plan=PLANS["domain-aware"](), params=params(probes={"per_task": 1500}))
    assert "Selected by mixed: 25% of 20 prunable layers, alpha 0.4." in text
    assert "\n- 4 protected: 0 to 2" in text
    assert "| calibration | 1,500 probes of each task" in text
    assert "| calibration |" not in card(plan=manual([3], [2]))


@pytest.mark.parametrize("which", BOTH)
def test_a_runtime_that_would_run_the_model_wrongly_is_named(which: Which) -> None:
    types = ("sliding_attention",) * 5 + ("full_attention",)
    kinds = LayerKinds(decoder="gemma3_text", fields={"layer_types": (types * 2)[:9]})
    for kinds_of_layers in (None, kinds):
        plan = manual([3], [2]).model_copy(update={"layer_kinds": kinds_of_layers})
        named = "\n- llama.cpp would run this model wrongly: it takes layer"
        assert (named in card(which, plan)) == bool(kinds_of_layers)
