"""What a user can set, and what they are told when it cannot be."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from interlace.data.probes import read_tasks
from interlace.errors import InputError
from interlace.params.choosing import SelectParams
from interlace.params.exporting import ExportParams
from interlace.params.healing import FinetuneParams
from interlace.params.inputs import SampleParams
from interlace.params.measuring import CollectParams
from interlace.params.whole import Params, part, read_params
from interlace.selection.feasible import check_parameters

ROOT = Path(__file__).parents[2]
MINIMAL: dict[str, Any] = {"model": {"id": "org/model"}, "data": {"id": "org/data"}}


def written(folder: Path, **values: Any) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(MINIMAL | values))
    return path


def refusal(folder: Path, **values: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_params(written(folder, **values))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{folder / 'mine.yaml'}: ")
    return message


@pytest.mark.parametrize("ratio", [0, 1, 1.5, -0.1, 0.0, 1.0, float("nan")])
def test_a_ratio_outside_0_to_1_is_refused(tmp_path: Path, ratio: float) -> None:
    assert f"ratio = {ratio!r}: " in refusal(tmp_path, ratio=ratio)


@pytest.mark.parametrize("ratio", [0.001, 0.25, 0.999])
def test_a_ratio_inside_is_kept(tmp_path: Path, ratio: float) -> None:
    assert read_params(written(tmp_path, ratio=ratio)).ratio == ratio


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    assert "ration: unknown key" in refusal(tmp_path, ration=0.2)


def test_an_unknown_key_in_a_section_is_named_with_its_section(tmp_path: Path) -> None:
    assert "finetune.lr: unknown key" in refusal(tmp_path, finetune={"lr": 1e-5})


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("data", "fraction", 0),
        ("data", "fraction", 1.1),
        ("data", "calibration_fraction", 0),
        ("data", "max_images", -1),
        ("data", "max_turns", 0),
        ("collect", "mode", "exact"),
        ("collect", "max_span", 2),
        ("collect", "dtype", "int8"),
        ("select", "shortfall", "stop"),
        ("select", "protect_first", -1),
        ("select", "protect_first", "some"),
        ("select", "protect_last", -1),
        ("export", "max_shard_mb", 0),
        ("finetune", "learning_rate", 0),
        ("finetune", "learning_rate", "fast"),
        ("finetune", "warmup_ratio", 1),
        ("finetune", "zero_stage", 1),
        ("finetune", "batch_size", 0),
        ("ttft", "confidence", 1),
        ("ttft", "max_interval", 0),
        ("evaluate", "limit", 0),
    ],
)
def test_a_bad_value_is_named_with_its_field(
    tmp_path: Path, section: str, field: str, value: Any
) -> None:
    given = MINIMAL.get(section, {}) | {field: value}
    message = refusal(tmp_path, **{section: given})
    assert f"{section}.{field}" in message
    assert f"= {value!r}: " in message


@pytest.mark.parametrize(("field", "value"), [("batch_sizes", 0), ("shapes", "POP")])
def test_a_bad_value_in_a_list_is_named_with_its_place(
    tmp_path: Path, field: str, value: Any
) -> None:
    message = refusal(tmp_path, ttft={field: [value]})
    assert f"ttft.{field}.0 = {value!r}: " in message


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, ratio=2, seed=-1)
    assert "ratio = 2" in message
    assert "seed = -1" in message


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("data: {id: org/data}\n")
    with pytest.raises(InputError, match="model: Field required"):
        read_params(tmp_path / "mine.yaml")


def test_a_missing_file_says_where_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.yaml: no such file; copy params.yaml"):
        read_params(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["", "- a\n", "just text\n"])
def test_a_file_without_keys_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=r"mine\.yaml: expected keys and values"):
        read_params(tmp_path / "mine.yaml")


def test_broken_yaml_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("ratio: [1\nseed: }\n")
    with pytest.raises(InputError, match=r"mine\.yaml: not valid YAML") as caught:
        read_params(tmp_path / "mine.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"], ids=["folder", "binary"])
def test_what_is_no_text_file_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mine.yaml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"mine\.yaml: "):
        read_params(path)


def test_parameters_cannot_be_changed_once_read(tmp_path: Path) -> None:
    params = read_params(written(tmp_path))
    with pytest.raises(ValueError, match="frozen"):
        params.ratio = 0.5


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (SampleParams, {"seed", "data", "probes"}),
        (CollectParams, {"collect"}),
        (SelectParams, {"ratio", "method", "seed", "select"}),
        (ExportParams, {"export", "sensitivity"}),
        (FinetuneParams, {"seed", "finetune"}),
    ],
)
def test_a_stage_sees_its_own_part_only(tmp_path: Path, model: Any, fields: set[str]) -> None:
    whole = read_params(written(tmp_path, ratio=0.2, seed=3))
    seen = part(whole, model)
    assert set(seen.model_dump()) == fields
    assert all(getattr(seen, name) == getattr(whole, name) for name in fields)


def test_defaults_are_the_published_recipe(tmp_path: Path) -> None:
    params: Params = read_params(written(tmp_path))
    tune = params.finetune
    assert (tune.epochs, tune.learning_rate, tune.warmup_ratio) == (1.0, 1e-5, 0.03)
    assert (tune.weight_decay, tune.max_grad_norm) == (0.0, 1.0)
    assert (tune.batch_size, tune.micro_batch_size) == (32, 16)
    assert (tune.min_pixels, tune.max_pixels, tune.max_length) == (784, 50176, 8192)
    assert (tune.gradient_checkpointing, tune.zero_stage, tune.workers) == (True, 3, 4)
    assert (params.data.max_images, params.data.max_turns) == (3, 3)
    assert params.data.calibration_fraction == 0.1


@pytest.mark.parametrize(
    "path",
    [ROOT / "params.yaml", *sorted((ROOT / "profiles").glob("*.yaml"))],
    ids=lambda p: p.name,
)
def test_the_files_in_this_repository_are_valid(path: Path) -> None:
    assert 0 < read_params(path).ratio < 1


@pytest.mark.parametrize(
    ("name", "value", "share"),
    [
        ("fraction", 0.005, 0.005),
        ("fraction", 0.03, 0.03),
        ("id", "HuggingFaceM4/ChartQA", 1.0),
        ("id", "lmms-lab/textvqa", 1.0),
        ("id", "lmms-lab/ScienceQA", 1.0),
    ],
)
def test_each_published_training_set_is_one_parameter_away_from_a_profile(
    name: str, value: Any, share: float
) -> None:
    data = read_params(ROOT / "profiles/qwen3-vl-8b.yaml").data
    assert data.model_copy(update={name: value}).share == share


@pytest.mark.parametrize("path", sorted((ROOT / "profiles").glob("qwen3-vl-*.yaml")), ids=str)
def test_profiles_draw_the_published_share_of_the_data(path: Path) -> None:
    data = read_params(path).data
    assert (data.share, data.calibration_fraction) == (0.01, 0.1)


def test_every_parameter_is_described() -> None:
    undescribed = [
        f"{section}.{name}"
        for section, field in Params.model_fields.items()
        for name, inner in getattr(field.annotation, "model_fields", {}).items()
        if not inner.description
    ]
    assert undescribed == []


@pytest.mark.parametrize(
    ("size", "layers", "drops"), [("2b", 28, [2, 6, 10]), ("4b", 36, [3, 8, 13])]
)
def test_domain_aware_profiles_drop_as_many_layers_as_published(
    size: str, layers: int, drops: list[int]
) -> None:
    params = read_params(ROOT / f"profiles/qwen3-vl-{size}-domain-aware.yaml")
    asked = [params.model_copy(update={"ratio": ratio}) for ratio in (0.1, 0.25, 0.4)]
    assert [check_parameters(each, layers, 3) for each in asked] == drops


@pytest.mark.parametrize("size", ["2b", "4b"])
def test_domain_aware_profiles_probe_as_often_as_published(size: str) -> None:
    params = read_params(ROOT / f"profiles/qwen3-vl-{size}-domain-aware.yaml")
    tasks = Counter(task.domain for task in read_tasks(ROOT / params.probes.prompts))
    passes = {domain: count * params.probes.per_task for domain, count in tasks.items()}
    assert passes == {"math": 5000, "nonmath": 4000}


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_alpha_outside_0_to_1_is_refused(tmp_path: Path, alpha: float) -> None:
    assert f"select.alpha = {alpha}: " in refusal(tmp_path, select={"alpha": alpha})


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({}, "needs exactly one of budget.params, budget.ttft_speedup and budget.retention: none"),
        ({"params": 0.8, "retention": 95.0}, "budget.params = 0.8, budget.retention = 95.0"),
    ],
)
def test_a_ratio_of_auto_needs_exactly_one_budget(
    tmp_path: Path, budget: dict[str, float], said: str
) -> None:
    params = read_params(written(tmp_path, ratio="auto", budget=budget))
    with pytest.raises(InputError, match=said):
        check_parameters(params, 24, 3)


@pytest.mark.parametrize(("offload", "stage"), [("optimizer", 0), ("all", 2), ("all", 0)])
def test_what_zero_cannot_keep_on_the_cpu_is_refused(
    tmp_path: Path, offload: str, stage: int
) -> None:
    message = refusal(tmp_path, finetune={"offload": offload, "zero_stage": stage})
    assert f"finetune: offload = {offload} needs zero_stage = " in message
