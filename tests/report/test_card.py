"""What a model card says of a run, for the hub and for people."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from report.report_cases import (
    PARAMS,
    SOURCES,
    UNSURE,
    card_run,
    change_scores,
    evaluations,
    full_scores,
    in_rounds,
    small_plan,
)

from interlace.plan.record import Decision, Plan, Shortfall
from interlace.pruning.report import ExportReport, ParityReport, SparsityReport
from interlace.report.card.card import model_card
from interlace.report.facts.run import PLACEHOLDER, Which, inherited_metadata, is_hub_id
from interlace.selection.select import select

BOTH: tuple[Which, ...] = ("pruned", "tuned")


def card(which: Which = "tuned", plan: Plan | None = None, **other: Any) -> str:
    return model_card(card_run(plan or small_plan(), **other), which)


def words(text: str) -> str:
    return " ".join(text.split())


def local(model: str, data: str = "data/train.parquet") -> dict[str, Any]:
    files = {"config.json": {"size": 1, "sha256": "0" * 64}}
    weights = {"model.safetensors": {"size": 1, "sha256": "ab" * 32}}
    rows = {"train.parquet": {"size": 1, "sha256": "cd" * 32}}
    return {
        "pinned_model": {"id": model, "files": files | weights},
        "pinned_data": {"id": data, "files": rows},
    }


def manual(drop: list[int], tune: list[int]) -> Plan:
    freeze = [i for i in range(9) if i not in drop + tune]
    return Plan(
        method="manual",
        ratio=len(drop) / 9,
        n_layers=9,
        drop=drop,
        tune=tune,
        freeze=freeze,
        groups=[],
        protected=[],
        shortfall=Shortfall(policy="pairs", wanted=len(drop), triplets=0, pairs=0, missing=0),
        sources={},
    )


def decided() -> Plan:
    decision = Decision(
        budget="params", target=0.8, drops=4, values={}, how="exact", reason="the fewest layers"
    )
    return select(full_scores(), ratio="auto", decision=decision)


PLANS = {
    "interlace": small_plan,
    "a budget": decided,
    "rounds": in_rounds,
    "domain-aware": lambda: select(full_scores(24, 3), method="mixed", alpha=0.4),
    "manual": lambda: manual([3], [2]),
    "manual, nothing tuned": lambda: manual([3], []),
    "dense-ft": lambda: select(full_scores(), method="dense-ft"),
}


@pytest.fixture(params=PLANS)
def plan(request: Any) -> Plan:
    return PLANS[request.param]()


@pytest.mark.parametrize("which", BOTH)
def test_the_hub_reads_what_was_written(plan: Plan, which: Which) -> None:
    data = ModelCard(card(which, plan)).data
    assert data.base_model == "Qwen/Qwen3-VL-8B-Instruct"
    assert (data.library_name, data.pipeline_tag) == ("transformers", "image-text-to-text")
    found = {
        result.dataset_name: (result.metric_value, result.metric_args)
        for result in data.eval_results
    }
    assert found == {
        name: (score.score, {"samples": 100, "standard_error": 1.5})
        for name, score in evaluations()[which].scores.items()
    }
    again = ModelCardData(**data.to_dict())
    assert again.to_yaml() == ModelCardData(**yaml.safe_load(data.to_yaml())).to_yaml()


def test_the_plan_and_the_parameters_can_be_read_back(plan: Plan) -> None:
    text = card("tuned", plan)
    told = re.search(r"```json\n(.*?)\n```", text, re.DOTALL)
    params = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert told and Plan.model_validate_json(told[1]) == plan
    pinned = {name: PARAMS[name] | {"revision": SOURCES[f"pinned_{name}"]["revision"]}
              for name in ("model", "data")}  # fmt: skip
    assert params and yaml.safe_load(params[1]) == PARAMS | pinned


@pytest.mark.parametrize(
    ("data", "part"),
    [
        ({"fraction": None}, "| 1% of ["),
        ({"fraction": 1.0}, "| ["),
        ({"fraction": 0.03, "subsets": ["ai2d", "chartqa"]}, "| 3% of ai2d, chartqa in ["),
        ({"fraction": 0.5, "weights": {"ai2d": 2.0}}, "| weighted 50% of ["),
    ],
)
def test_a_card_says_which_part_of_the_data_was_drawn(data: dict[str, Any], part: str) -> None:
    params = PARAMS | {"data": {"id": "HuggingFaceM4/FineVision"} | data}
    assert f"| data {part}HuggingFaceM4/FineVision]" in card(params=params)


@pytest.mark.parametrize(
    "line",
    [
        "# Qwen3-VL-8B-Instruct-interlace-25",
        "| decoder layers | 9 | 7 |",
        "| parameters | 1.00K | 800 (-20.0%) |",
        "| mean score, 2 benchmarks | 65.0 | 61.0 |",
        "| of the dense model's |  | 95.0% |",
        "| time to first token | 34.0 ms | 27.2 ms (1.25x) |",
        "| dropped | 2, 5 |",
        "| fine-tuned | 1, 6 |",
        "| frozen | 0, 3, 4, 7, 8 |",
        "| AI2D | 100 | 80.0 ± 1.5 | 40.0 ± 1.5 | 72.0 ± 1.5 | 90.0% |",
        "| POPE | 100 | 90.0 ± 1.5 | 81.0 ± 1.5 | \u2013 | \u2013 |",
        "| **mean** |  | **65.0 ± 1.1** | **30.0 ± 1.1** | **61.0 ± 1.1** | **95.0%** |",
        "- MIA-Bench: no judge is configured",
        "| data | 1% of [HuggingFaceM4/FineVision](https://huggingface.co/HuggingFaceM4/FineVision)"
        ", revision `c1a2b3d`: 240,000 rows |",
        "| calibration | 24,000 rows, drawn from the data |",
        "| fine-tuning | only the layers listed above: 1 epoch of 32 rows, AdamW, learning rate"
        " 1e-05, loss on the answers |",
    ],
)
def test_the_tuned_card_says(line: str) -> None:
    assert line in card("tuned").splitlines()


@pytest.mark.parametrize(
    "line",
    [
        "# Qwen3-VL-8B-Instruct-interlace-25-untuned",
        "| mean score, 2 benchmarks | 65.0 | 30.0 |",
        "| dropped | 2, 5 |",
        "| kept | 0, 1, 3, 4, 6, 7, 8 |",
        "| AI2D | 100 | 80.0 ± 1.5 | 40.0 ± 1.5 | 50.0% |",
    ],
)
def test_the_pruned_card_says(line: str) -> None:
    assert line in card("pruned").splitlines()


def test_a_checkpoint_of_which_nothing_was_tuned_claims_no_tuning() -> None:
    for which, plan in (("pruned", small_plan()), ("tuned", manual([3], []))):
        text = card(which, plan).split("## Reproduce it")[0]
        assert "Nothing was fine-tuned: every weight is the dense model's, bit for bit." in text
        assert not re.search(r"were fine-tuned|\| fine-tuning|Dense-FT|AdamW|datasets:", text)


def test_the_data_set_is_named_to_the_hub_where_weights_were_trained_on_it() -> None:
    assert ModelCard(card("tuned")).data.datasets == ["HuggingFaceM4/FineVision"]
    assert ModelCard(card("pruned")).data.datasets is None


def test_the_reference_is_named_and_linked() -> None:
    text = words(card())
    link = "[Qwen/Qwen3-VL-8B-Instruct](https://huggingface.co/Qwen/Qwen3-VL-8B-Instruct)"
    assert f"The reference is Dense, {link} as it is" in text
    assert "Dense-FT, the dense model fine-tuned by the same recipe, was not measured" in text


def test_the_fine_tuned_dense_model_is_called_what_it_is() -> None:
    text = words(card("tuned", select(full_scores(), method="dense-ft")))
    assert "with all of its 24 decoder layers, 6 of them fine-tuned." in text
    assert "This model is Dense-FT, the fine-tuned reference itself." in text
    assert "| dropped | none |" in text and "without" not in text.split("## Layers")[0]


def test_a_local_base_model_is_known_by_its_hash_and_not_claimed_on_the_hub() -> None:
    text = card(sources=local("data/demo/model"))
    assert ModelCard(text).data.base_model is None
    assert "huggingface.co" not in text
    assert f"| base model | `data/demo/model`, sha256 `{'ab' * 8}` |" in text.splitlines()


def test_places_of_this_machine_are_not_told() -> None:
    place = "/home/somebody/models/Qwen3-VL-8B"
    params = PARAMS | {"model": {"id": place}, "data": {"id": "/data/fine"}}
    plan = small_plan().model_copy(update={"sources": {"model": place}})
    for which in BOTH:
        text = card(which, plan, params=params, sources=local(place, "/data/fine"))
        assert "/home" not in text and "/data" not in text and "`Qwen3-VL-8B`" in text


def test_neither_the_launcher_nor_the_judge_s_address_is_told() -> None:
    params = PARAMS | {
        "launch": "deepspeed --hostfile /home/somebody/hosts --module",
        "evaluate": {"limit": 7, "judge": {"url": "http://judge.internal:8000/v1", "model": "j"}},
    }
    for which in BOTH:
        text = card(which, params=params)
        assert "hostfile" not in text and "judge.internal" not in text
        assert "limit: 7" in text and "model: j" in text


def test_time_to_first_token_says_how_sure_and_on_what() -> None:
    text = words(card())
    assert "a speedup of 1.25x (95% interval 1.21x to 1.29x; 1.28x by FLOPs)" in text
    assert "40 paired requests, batch size 1, on a CPU with 2 threads" in text
    assert "Measured on the tuned checkpoint, which has the same shape." in words(card("pruned"))


@pytest.mark.parametrize("which", BOTH)
def test_a_speedup_that_is_too_unsure_is_not_given_and_why(which: Which) -> None:
    text = words(card(which, ttft=UNSURE))
    assert "Speedup uncertain: its 95% interval, 1.02 to 1.43, is wider than 10% of it." in text
    assert "34.0 ms dense, 27.2 ms pruned" in text and "a speedup of" not in text


@pytest.mark.parametrize("which", BOTH)
def test_what_was_not_measured_is_said_so(which: Which) -> None:
    results = evaluations()
    for result in results.values():
        result.scores.clear()
    text = card(which, evaluations=results, ttft={})
    assert "## Scores\n\nNot measured." in text and "## Speed\n\nNot measured." in text
    assert ModelCard(text).data.eval_results is None
    assert "mean score" not in text and "of the dense model's" not in text


def test_a_score_without_an_error_is_written_alone() -> None:
    results = evaluations()
    for result in results.values():
        change_scores(result, "AI2D", standard_error=None)
    text = card(evaluations=results)
    assert "| AI2D | 100 | 80.0 | 40.0 | 72.0 | 90.0% |" in text.splitlines()
    assert ModelCard(text).data.eval_results[0].metric_args == {"samples": 100}


def test_a_benchmark_that_only_the_other_model_has_leaves_its_cells_empty() -> None:
    results = evaluations()
    results["tuned"].scores["DocVQA"] = results["dense"].scores["AI2D"]
    none = "\u2013"
    line = f"| DocVQA | {none} | {none} | {none} | {none} |"
    assert line in card("pruned", evaluations=results).splitlines()


def test_samples_that_differ_between_models_are_a_range() -> None:
    results = evaluations()
    change_scores(results["dense"], "AI2D", n=3088)
    assert "| AI2D | 100 to 3,088 | 80.0" in card(evaluations=results)


def test_the_card_says_what_the_method_was_told_and_why_layers_are_protected() -> None:
    text = card(plan=PLANS["domain-aware"]())
    assert "Selected by mixed: 25% of 20 prunable layers, alpha 0.4." in text
    assert "\n- 4 protected: 0 to 2 (image features are added after them) and 23 (its" in text
    assert "| calibration | 1,000 probes of each task, on images of the data |" in text


def test_layers_that_a_person_chose_were_not_calibrated() -> None:
    assert "| calibration |" not in card(plan=manual([3], [2]))


def test_the_card_gives_a_budgets_reason() -> None:
    assert "\n- ratio = auto: the fewest layers\n" in card(plan=decided())


CUTS = [
    {"cut": [2], "folded_into": 1, "residual_before": 0.25, "residual_after": 0.125, "kept": True},
    {"cut": [5], "folded_into": 4, "residual_before": 0.1, "residual_after": 0.1, "kept": False},
]


@pytest.mark.parametrize("which", BOTH)
def test_what_export_did_is_told(which: Which) -> None:
    exported = {
        "parity": {"samples": 4, "tokens": 1200, "greatest_difference": 0.0},
        "compensation": {"method": "least-squares", "cuts": CUTS},
        "sparsity": None,
    }
    text = card(which, exported=ExportReport.model_validate(exported))
    assert "least-squares: dropped layers folded, 2 into 1 (residual 0.25 to 0.125); not 5" in text
    assert "without the dropped layers, bit for bit, on 4 samples of 1,200 tokens" in text
    assert "every weight is" not in text.lower() and "every other weight" not in text.lower()


def test_a_checkpoint_that_was_not_checked_says_so() -> None:
    assert "not checked against the dense model" in card(
        exported=ExportReport(parity=ParityReport(samples=0))
    )


def test_a_sparse_checkpoint_is_promised_no_speed() -> None:
    exported = ExportReport(sparsity=SparsityReport(method="wanda-2:4", tensors=42))
    text = card("pruned", manual([], []), exported=exported, ttft={})
    assert "two of every four weights of their linear layers are zero" in text
    assert "| sparsity | wanda-2:4: 42 weight matrices |" in text.splitlines()
    assert "fast" not in text.split("## Reproduce it")[0]


def test_converted_weights_are_not_called_the_dense_model_s() -> None:
    text = card(params=PARAMS | {"export": {"dtype": "bfloat16"}})
    assert "bit for bit" not in text


def test_the_example_is_python_and_loads_from_where_push_says() -> None:
    for trust in (False, True):
        model = SOURCES["pinned_model"] | {"trust_remote_code": trust}
        text = card(sources=SOURCES | {"pinned_model": model})
        code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
        assert code and code[1].count(PLACEHOLDER) == 2
        assert ("trust_remote_code=True" in code[1]) is trust
        compile(code[1], "card", "exec")


LICENSED = "---\nlicense: other\nlicense_name: own\nlanguage: [en]\ntags: [mine]\n---\n# Base\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (LICENSED, {"license": "other", "license_name": "own", "language": ["en"]}),
        ("# No metadata\n", {}),
        ("---\nlicense: [\n---\n", {}),
        (None, {}),
    ],
)
def test_the_licence_comes_from_the_base_model_s_card(
    tmp_path: Path, text: str | None, found: dict[str, Any]
) -> None:
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    assert inherited_metadata(tmp_path) == found
    data = ModelCard(card(inherited=found)).data.to_dict()
    assert {name: data.get(name) for name in found} == found
    assert "mine" not in data["tags"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [("Qwen/Qwen3-VL-8B", True), ("data/demo/model", False), ("/models/a", False), ("a", False)],
)
def test_a_hub_id_has_two_parts(source: str, expected: bool) -> None:
    assert is_hub_id(source) is expected


def test_values_of_a_run_are_left_as_they_are() -> None:
    run = card_run(small_plan())
    before = json.dumps([dataclasses.asdict(run)["params"], run.sources], sort_keys=True)
    model_card(run, "tuned")
    assert json.dumps([dict(run.params), run.sources], sort_keys=True) == before


def test_a_dense_model_that_scores_nothing_has_a_card_without_retention(plan: Plan) -> None:
    made = evaluations()
    change_scores(made["dense"], score=0.0)
    text = model_card(card_run(plan, evaluations=made), "pruned")
    assert "mean score, 2 benchmarks" in text
    assert "of the dense model's" not in text
