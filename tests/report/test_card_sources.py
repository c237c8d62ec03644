"""Sources in a model card: named so that the run can be repeated, without paths of one machine."""

from __future__ import annotations

import re
from typing import Any

import pytest
from huggingface_hub import ModelCard
from report.cards import BOTH, card, local
from report.report_cases import SOURCES, make_run, params, small_plan
from sources_json import pinned_model

from interlace.report.facts.run import Which, is_hub_id, loaded_from, pinned_params
from interlace.sources.pinned import PinnedSources
from interlace.system.documents import as_yaml


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


@pytest.mark.parametrize("trust", [False, True])
def test_the_example_is_python_and_loads_from_where_push_says(trust: bool) -> None:
    model = SOURCES.model.model_copy(update={"trust_remote_code": trust})
    text = card(sources=SOURCES.model_copy(update={"model": model}))
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code and code[1].count(loaded_from("tuned")) == 2
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
