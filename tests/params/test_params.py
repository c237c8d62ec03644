"""What a user can set, and what they are told when it cannot be."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interlace.data.probes import read_tasks
from interlace.errors import InputError
from interlace.params.section import leaf_names, validated
from interlace.params.whole import Params, read_params, settings
from interlace.selection.feasible import check_parameters
from interlace.system.documents import as_yaml, read_yaml

ROOT = Path(__file__).parents[2]
PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))
PUBLISHED = [path for path in PROFILES if path.stem.startswith("qwen3-vl-")]
MINIMAL: dict[str, Any] = {"model": {"id": "org/model"}, "data": {"id": "org/data"}}


def written(folder: Path, **values: Any) -> Path:
    path = folder / "mine.yaml"
    path.write_text(as_yaml(MINIMAL | values))
    return path


def refusal(folder: Path, **values: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_params(written(folder, **values))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{folder / 'mine.yaml'}: ")
    return message


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("finetune.learning_rte", "finetune.learning_rate"),
        ("finetune.local_steps", "heal.local_steps"),
        ("sensitivity.batch_tokens", "measure.batch_tokens"),
        ("evaluate.judge.uri", "evaluate.judge.url"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(
    tmp_path: Path, key: str, nearest: str
) -> None:
    values: Any = 1
    for name in reversed(key.split(".")):
        values = {name: values}
    assert f"{key}: unknown key; did you mean {nearest}?" in refusal(tmp_path, **values)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ratio", 0),
        ("ratio", 1.0),
        ("ratio", float("nan")),
        ("dtype", "int8"),
        ("data.fraction", 0),
        ("data.fraction", 1.1),
        ("data.calibration_fraction", 0),
        ("collect.max_span", 2),
        ("select.protect_first", -1),
        ("select.alpha", 1.1),
        ("finetune.learning_rate", "fast"),
        ("finetune.warmup_ratio", 1),
        ("finetune.zero_stage", 1),
        ("ttft.confidence", 1),
        ("ttft.batch_sizes", [0]),
        ("ttft.shapes", ["POP"]),
    ],
)
def test_a_bad_value_is_named_with_its_field(tmp_path: Path, field: str, value: Any) -> None:
    section, _, name = field.partition(".")
    values = {section: MINIMAL.get(section, {}) | {name: value}} if name else {section: value}
    message = refusal(tmp_path, **values)
    if isinstance(value, list):
        field, value = f"{field}.0", value[0]
    assert f"{field} = {value!r}: " in message


def fields() -> Iterator[tuple[str, Any]]:
    """Every parameter by name, with its type."""
    sections: list[tuple[str, Any]] = [("", Params)]
    while sections:
        prefix, section = sections.pop()
        for name, field in section.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                sections.append((f"{prefix}{name}.", field.annotation))
            else:
                yield f"{prefix}{name}", field.annotation


FIELDS = dict(fields())
NUMBERS = {
    name
    for name, kind in FIELDS.items()
    if re.search(r"\b(int|float)\b", repr(kind))
    and "tuple" not in repr(kind)
    and "dict" not in repr(kind)
}


def with_value(field: str, value: Any) -> dict[str, Any]:
    """The parameters with one value changed."""
    for name in reversed(field.split(".")):
        value = {name: value}
    section = field.partition(".")[0]
    return {section: MINIMAL.get(section, {}) | value[section] if "." in field else value[section]}


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_no_parameter_takes_a_value_that_a_library_cannot(field: str) -> None:
    enormous = [10**30, -(10**30), 1e300, float("inf"), float("-inf"), float("nan")]
    strange: list[Any] = [*enormous, [10**30], [float("inf")], {"a": float("nan")}, {"a": 10**30}]
    if "bool" not in repr(FIELDS[field]):
        strange += [True, False, [True], {"a": False}]
    for value in strange:
        with pytest.raises(InputError) as caught:
            validated(Params, MINIMAL | with_value(field, value), "mine.yaml")
        assert "\n" not in str(caught.value)


def test_numbers_end_where_libraries_do(tmp_path: Path) -> None:
    assert len(NUMBERS) > 50
    assert read_params(written(tmp_path, seed=2**32 - 1)).seed == 2**32 - 1
    for field in NUMBERS:
        with pytest.raises(InputError, match=f"{re.escape(field)} = 4294967296: "):
            validated(Params, MINIMAL | with_value(field, 2**32), "mine.yaml")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model: {id: 12345e7}", "model.id = 123450000000.0: Input should be a valid string, in"),
        ("data: {id: 2001-01-01}", "data.id = datetime.date(2001, 1, 1): Input should be a valid"),
        ("finetune: {zero_stage: off}", "finetune.zero_stage = 'off': Input should be 0, 2 or 3"),
        ("finetune: {zero_stage: false}", "finetune.zero_stage = False: true and false are no"),
        ("seed: 0x" + "f" * 5000, "seed = a number of 20000 bits: "),
        ("ratio: " + "9" * 4000, "ratio = 9999"),
        ("data: {id: x, subsets: !!set {a}}", "data.subsets = {'a'}: write a list or text"),
        ("data: {id: !!binary aGk=}", "data.id = b'hi': write a list or text, without a tag"),
        ('model: {id: "a\\0b"}', r"model.id = 'a\x00b': holds a character that no name"),
        ('model: {id: "a\\ud800"}', "model.id = 'a"),
        ("method: [" + "x, " * 5000 + "x]", "method = ['x', 'x', 'x', 'x', 'x', 'x', ...]: "),
    ],
)  # fmt: skip
def test_a_value_of_yaml_is_refused_in_a_short_line(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"{text}\n")
    with pytest.raises(InputError) as caught:
        read_params(path)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(path))


def test_layers_are_decimal_numbers(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model: {id: a/b}\ndata: {id: c/d}\nselect: {drop: [010, 012, 1e1]}\n")
    assert read_params(path).select.drop == (10, 12, 10)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, ratio=2, seed=-1, model={})
    assert all(mistake in message for mistake in ("ratio = 2", "seed = -1", "model.id: Field req"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "expected keys and values"),
        (b"- a\n", "expected keys and values"),
        (b"ratio: [1\nseed: }\n", "not valid YAML"),
        (b"\xff\xfe\x00", "not a readable text file"),
        (None, "no such file; `interlace init`"),
    ],
)
def test_a_file_that_holds_no_parameters_is_refused_in_one_line(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"mine\.yaml: {reason}") as caught:
        read_params(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("export", [None, {}, {"max_shard_mb": 4096}])
def test_an_empty_section_means_its_defaults(tmp_path: Path, export: dict[str, int] | None) -> None:
    params = read_params(written(tmp_path, export=export))
    assert params == read_params(written(tmp_path))
    assert settings(params)["export"] == {}


def test_settings_are_what_differs_from_the_defaults(tmp_path: Path) -> None:
    params = read_params(written(tmp_path, ratio=0.2, finetune={"epochs": 1, "max_steps": 9}))
    changed = settings(params)
    assert changed.keys() == Params.model_fields.keys() | {"row_bounds"}
    assert (changed["ratio"], changed["seed"]) == (0.2, 0)
    assert (changed["finetune"], changed["heal"]) == ({"max_steps": 9}, {})
    assert changed["model"] == {"id": "org/model"}


ENDPOINT = {"engine": "endpoint", "endpoint": {"urls": ["http://a/v1"], "models": {"tuned": "t"}}}


@pytest.mark.parametrize(
    ("evaluate", "expected"),
    [
        (
            ENDPOINT | {"batch_size": 2},
            {"engine": "endpoint", "endpoint": {"models": {"tuned": "t"}}},
        ),
        (
            {"engine": "vllm", "vllm": {"command": "v", "ready_seconds": 9}, "concurrency": 1},
            {"engine": "vllm", "vllm": {"command": "v"}},
        ),
        (ENDPOINT | {"engine": "transformers", "max_failed": 0.5, "limit": 3}, {"limit": 3}),
    ],
    ids=["endpoint", "vllm", "transformers"],
)
def test_answers_do_not_depend_on_where_and_how_servers_are_asked(
    tmp_path: Path, evaluate: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert settings(read_params(written(tmp_path, evaluate=evaluate)))["evaluate"] == expected


def test_defaults_are_the_published_recipe(tmp_path: Path) -> None:
    params: Params = read_params(written(tmp_path))
    tune = params.finetune
    assert (tune.epochs, tune.learning_rate, tune.warmup_ratio) == (1.0, 1e-5, 0.03)
    assert (tune.weight_decay, tune.max_grad_norm) == (0.0, 1.0)
    assert (tune.batch_size, tune.micro_batch_size) == (32, 16)
    assert (tune.min_pixels, tune.max_pixels, tune.max_length) == (784, 50176, 8192)
    assert (tune.gradient_checkpointing, tune.zero_stage, tune.workers) == (True, 0, 4)
    assert (params.data.max_images, params.data.max_turns) == (3, 3)
    assert params.data.calibration_fraction == 0.1


@pytest.mark.parametrize(
    ("dtype", "finetune", "expected"),
    [
        ("auto", "auto", "auto"),
        ("bfloat16", "auto", "bfloat16"),
        ("float16", "auto", "float32"),
        ("bfloat16", "float32", "float32"),
    ],
)
def test_a_type_is_set_once_and_fine_tuning_may_differ(
    tmp_path: Path, dtype: str, finetune: str, expected: str
) -> None:
    params = read_params(written(tmp_path, dtype=dtype, finetune={"dtype": finetune}))
    assert (params.finetune_options.dtype, params.recipe.dtype) == (expected, expected)
    options = params.collect_options, params.answer_options, params.sensitivity_options
    assert {each.dtype for each in options} == {dtype}


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *PROFILES], ids=lambda path: path.name)
def test_a_file_of_this_repository_is_short_and_valid(path: Path) -> None:
    assert read_params(path)
    assert len(path.read_text().splitlines()) <= 60


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.name)
def test_a_published_profile_draws_the_published_share(path: Path) -> None:
    params = read_params(path)
    assert (params.data.share, params.data.calibration_fraction) == (0.01, 0.1)


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.name)
def test_a_profile_names_only_changed_settings(path: Path) -> None:
    params, values = read_params(path), read_yaml(path)
    for name, section in values.items():
        if isinstance(section, dict):
            assert section.keys() == settings(params)[name].keys(), name


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.name)
def test_a_profile_measures_three_images_of_the_greatest_size_whole(path: Path) -> None:
    """Within the bounds of Qwen3-VL's preprocessor_config.json."""
    from transformers import Qwen2VLImageProcessor

    size = {"shortest_edge": 65_536, "longest_edge": 16_777_216}
    processor = Qwen2VLImageProcessor(size=size, patch_size=16, merge_size=2)
    shapes = [(4096, 4096), (9000, 9000), (20_000, 200), (1, 1), (5000, 7001)]
    tokens = [processor.get_number_of_image_patches(*shape) // 4 for shape in shapes]
    assert (max(tokens), min(tokens)) == (16_384, 64)
    params = read_params(path)
    assert params.measure.max_pixels is None
    assert params.measure.max_length >= params.data.max_images * max(tokens) + 8192
    assert (params.finetune.max_pixels, params.finetune.max_length) == (50_176, 8192)


def test_the_8b_profile_alone_trains_the_head() -> None:
    trained = {path.stem: read_params(path).finetune.also for path in PROFILES}
    assert {name: also for name, also in trained.items() if also} == {"qwen3-vl-8b": ("lm_head",)}


def test_each_published_training_set_is_one_parameter_away_from_a_profile() -> None:
    data = read_params(ROOT / "profiles/qwen3-vl-8b.yaml").data
    assert data.model_copy(update={"fraction": 0.005}).share == 0.005
    for name in ("HuggingFaceM4/ChartQA", "lmms-lab/textvqa", "lmms-lab/ScienceQA"):
        assert data.model_copy(update={"id": name}).share == 1.0


def test_every_parameter_is_described() -> None:
    assert {"ratio", "evaluate.judge.url", "heal.local_steps"} <= set(leaf_names(Params))
    sections: list[Any] = [Params]
    while sections:
        for name, field in sections.pop().model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                sections.append(field.annotation)
            else:
                assert field.description, name


@pytest.mark.parametrize(
    ("size", "layers", "drops"), [("2b", 28, [2, 6, 10]), ("4b", 36, [3, 8, 13])]
)
def test_domain_aware_profiles_drop_and_probe_as_published(
    size: str, layers: int, drops: list[int]
) -> None:
    params = read_params(ROOT / f"profiles/qwen3-vl-{size}-domain-aware.yaml")
    for ratio, n in zip((0.1, 0.25, 0.4), drops, strict=True):
        assert check_parameters(params.model_copy(update={"ratio": ratio}), layers, 3) == n
    tasks = Counter(task.domain for task in read_tasks(ROOT / params.probes.prompts))
    probes = {domain: count * params.probes.per_task for domain, count in tasks.items()}
    assert probes == {"math": 5000, "nonmath": 4000}


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({}, "needs exactly one of budget.params, budget.ttft_speedup and budget.retention: none"),
        ({"params": 0.8, "retention": 95.0}, "budget.params = 0.8, budget.retention = 95.0"),
    ],
)
def test_a_ratio_of_auto_needs_exactly_one_budget(
    tmp_path: Path, budget: dict[str, float], message: str
) -> None:
    params = read_params(written(tmp_path, ratio="auto", budget=budget))
    with pytest.raises(InputError, match=message):
        check_parameters(params, 24, 3)


@pytest.mark.parametrize(("offload", "stage"), [("optimizer", 0), ("all", 2), ("all", 0)])
def test_what_zero_cannot_keep_on_the_cpu_is_refused(
    tmp_path: Path, offload: str, stage: int
) -> None:
    message = refusal(tmp_path, finetune={"offload": offload, "zero_stage": stage})
    assert f"finetune: offload = {offload} needs zero_stage = " in message
