"""What a model card says of a run, for the hub and for people."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from huggingface_hub import ModelCard
from plans import make_plan
from report.report_cases import (
    SOURCES,
    UNSURE,
    change_scores,
    decided,
    evaluations,
    full_scores,
    in_rounds,
    make_run,
    params,
    small_plan,
    without_scores,
)
from sources_json import pinned_model

from interlace.evaluation.scores.result import Evaluation
from interlace.model.kinds import LayerKinds
from interlace.plan.record import Plan
from interlace.pruning.report import ExportReport, ParityReport, SparsityReport
from interlace.report.card.card import model_card
from interlace.report.card.recipe import training_text
from interlace.report.facts.run import PLACEHOLDER, Which, is_hub_id, pinned_params
from interlace.report.page.run import run_page
from interlace.samples.own_answers import AnswerSheet
from interlace.selection.select import select
from interlace.sources.pinned import PinnedData, PinnedFile, PinnedSources
from interlace.system.documents import as_yaml, parse_yaml

BOTH: tuple[Which, ...] = ("pruned", "tuned")
NONE = "\u2013"


def card(which: Which = "tuned", plan: Plan | None = None, **changes: Any) -> str:
    return model_card(make_run(plan, **changes), which)


def local(model: str, data: str = "data/train.parquet") -> PinnedSources:
    config, weights, rows = (PinnedFile(size=1, sha256=two * 32) for two in ("00", "ab", "cd"))
    return PinnedSources(
        model=pinned_model(model, files={"config.json": config, "model.safetensors": weights}),
        data=PinnedData(id=data, files={"train.parquet": rows}),
    )


def manual(drop: list[int], tune: list[int]) -> Plan:
    return make_plan(drop, tune, 9).model_copy(update={"method": "manual"})


PLANS = {
    "interlace": small_plan,
    "a budget": decided,
    "rounds": in_rounds,
    "domain-aware": lambda: select(full_scores(24, 3), method="mixed", alpha=0.4),
    "manual, nothing tuned": lambda: manual([3], []),
    "dense-ft": lambda: select(full_scores(), method="dense-ft"),
}


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


@pytest.mark.parametrize(
    ("data", "share"),
    [
        ({"fraction": None}, "1% of "),
        ({"fraction": 1.0}, ""),
        ({"fraction": 0.03, "subsets": ["ai2d", "chartqa"]}, "3% of ai2d, chartqa in "),
        ({"fraction": 0.5, "weights": {"ai2d": 2.0}}, "weighted 50% of "),
    ],
)
def test_the_drawn_share_of_the_data_is_named(data: dict[str, Any], share: str) -> None:
    text = card(params=params(data={"id": "HuggingFaceM4/FineVision"} | data))
    assert f"| data | {share}[HuggingFaceM4/FineVision]" in text


def changed(*models: str, **changes: Any) -> dict[str, Evaluation]:
    """The evaluations, with other scores of AI2D and ChartQA in some models."""
    results = evaluations()
    for model in models or tuple(results):
        change_scores(results[model], "AI2D", "ChartQA", **changes)
    return results


LOCAL = local("data/demo/model")
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


def test_the_fine_tuned_dense_model_is_not_called_pruned() -> None:
    text = card("tuned", PLANS["dense-ft"]())
    assert "This model is Dense-FT" in text and "Dense-FT" in card()
    assert "| dropped | none |" in text and "without" not in text.split("## Layers")[0]


@pytest.mark.parametrize("which", BOTH)
def test_paths_and_addresses_of_this_machine_are_left_out(which: Which) -> None:
    folder = "/home/somebody/models/Qwen3-VL-8B"
    sections = {
        "model": {"id": folder},
        "data": {"id": "/data/fine"},
        "launch": "deepspeed --hostfile hosts --module",
        "evaluate": {"limit": 7, "judge": {"url": "http://judge.internal:8000/v1", "model": "j"}},
    }
    plan = small_plan().model_copy(update={"sources": {"model": folder}})
    text = card(which, plan, params=params(**sections), sources=local(folder, "/data/fine"))
    assert ModelCard(text).data.base_model is None
    assert not re.search(r"/home|/data|hostfile|judge\.internal", text)
    assert all(fact in text for fact in ("`Qwen3-VL-8B`", "limit: 7", "model: j"))


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


@pytest.mark.parametrize("trust", [False, True])
def test_the_example_is_python_and_loads_from_where_push_says(trust: bool) -> None:
    model = SOURCES.model.model_copy(update={"trust_remote_code": trust})
    text = card(sources=SOURCES.model_copy(update={"model": model}))
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code and code[1].count(PLACEHOLDER) == 2
    assert ("trust_remote_code=True" in code[1]) is trust
    compile(code[1], "card", "exec")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("data/smollm2/model", "smollm2"),
        ("/models/Llama-3.2-1B", "Llama-3.2-1B"),
        ("/models/Llama-3.2-1B/model", "Llama-3.2-1B"),
        ("model", "model"),
    ],
)
def test_a_folder_named_model_is_named_by_the_one_around_it(source: str, name: str) -> None:
    text = card(sources=local(source))
    assert f"# {name}-interlace-" in text
    assert f"`{name}` without " in text


def test_the_parameters_of_a_text_only_model_are_not_about_images() -> None:
    base = pinned_model("a/b", model_type="llama", files=None, revision="0c351dd")
    run = make_run(sources=PinnedSources(model=base, data=SOURCES.data))
    text = as_yaml(pinned_params(run))
    assert "per_task" not in text and "pixels" not in text
    assert "min_pixels" in as_yaml(pinned_params(make_run()))


def test_a_hub_id_has_two_parts() -> None:
    sources = ("Qwen/Qwen3-VL-8B", "data/demo/model", "/models/a", "a")
    assert [source for source in sources if is_hub_id(source)] == ["Qwen/Qwen3-VL-8B"]


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
