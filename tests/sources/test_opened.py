"""A model that later stages could not open is refused by `pin`, in one line."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import family_processors
import pytest
import torch
from hub import DEMO
from safetensors.torch import load_file, save_file

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.safetensors import checkpoint_tensors
from interlace.errors import InputError
from interlace.model.files import CONFIG, SINGLE
from interlace.sources import opened
from interlace.sources.opened import ImageBounds, check_pinned_model
from interlace.sources.pin import pin_model

PREFIX = "model.language_model.layers"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO, tmp_path / "model"))


def check(
    folder: Path,
    max_pixels: int | None = None,
    tuned: tuple[int | None, int | None] = (None, None),
) -> None:
    model = pin_model(str(folder), None, hashes=folder.parent / "hashes.json")
    bounds = [ImageBounds("measure", max_pixels=max_pixels), ImageBounds("finetune", *tuned)]
    check_pinned_model(model, bounds, checked=folder.parent / "opened.json")


def field(*path: str, value: Any, file: str = CONFIG) -> Callable[[Path], None]:
    """Set a field of a configuration; `path` ends in its name."""

    def change(folder: Path) -> None:
        config = json.loads((folder / file).read_text())
        section = config
        for name in path[:-1]:
            section = section[name]
        section[path[-1]] = value
        (folder / file).write_text(json.dumps(config))

    return change


def text(file: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_text(content)


def dtype(name: str, kind: torch.dtype) -> Callable[[Path], None]:
    """Store one tensor in another type."""

    def change(folder: Path) -> None:
        tensors = load_file(folder / SINGLE)
        tensors[name] = tensors[name].to(kind)
        save_file(tensors, folder / SINGLE, metadata={"format": "pt"})

    return change


def lacks(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / SINGLE)
        del tensors[name]
        save_file(tensors, folder / SINGLE, metadata={"format": "pt"})

    return change


TEXT, VISION = "text_config", "vision_config"
DEEP = '{"a":' * 100_000
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no section": (field(TEXT, value=None), r"text_config = None: expected keys and values"),
    "no vision": (field(VISION, value=[]), r"vision_config = \[\]: expected keys"),
    "million layers": (field(TEXT, "num_hidden_layers", value=10**6), "is not a count of layers"),
    "many layers": (field(TEXT, "num_hidden_layers", value=9999), "weights hold 329 tensors"),
    "one layer more": (field(TEXT, "num_hidden_layers", value=25), "no stack of 25 layers"),
    "million blocks": (field(VISION, "depth", value=10**6), r"depth = 1000000, and the weights"),
    "taps too deep": (field(VISION, "deepstack_visual_indexes", value=[9]), r"\[9\]: expected"),
    "text for a number": (field(TEXT, "hidden_size", value="128"), r"config\.json: .*hidden_size"),
    "text for a float": (field(TEXT, "rms_norm_eps", value="1e-6"), "rms_norm_eps"),
    "another width": (field(TEXT, "intermediate_size", value=64), r"stored as \[128, 256\], and"),
    "two sections": (
        field(TEXT, "rope_parameters", "mrope_section", value=[8, 8]),
        r"rope_parameters\.mrope_section = \[8, 8\]: expected 3 counts",
    ),
    "null in sections": (
        field(TEXT, "rope_parameters", "mrope_section", value=[None]),
        r"mrope_section = \[None\]: expected 3 counts",
    ),
    "text for a flag": (field("tie_word_embeddings", value="no"), "expected true or false"),
    "untied": (field("tie_word_embeddings", value=False), r"the weights lack lm_head\.weight"),
    "quantised": (field(TEXT, "quantization_config", value={"bits": 4}), "quantised weights"),
    "float8": (
        dtype(f"{PREFIX}.3.mlp.up_proj.weight", torch.float8_e4m3fn),
        r"layers\.3\.mlp\.up_proj\.weight holds numbers of type F8_E4M3",
    ),
    "integers": (dtype(f"{PREFIX}.3.mlp.up_proj.weight", torch.int8), "of type I8"),
    "no norm": (lacks("model.language_model.norm.weight"), "the weights lack .*norm.weight"),
    "deep tokenizer": (text("tokenizer.json", DEEP), r"tokenizer\.json: .* nested too deeply"),
    "empty settings": (text("generation_config.json", ""), r"generation_config\.json: not reada"),
    "huge end": (
        field("eos_token_id", value=10**20, file="generation_config.json"),
        r"eos_token_id = 100000000000000000000 is no token of the model",
    ),
    "unknown end": (
        field("eos_token_id", value=[2, 10**6], file="generation_config.json"),
        r"eos_token_id = 1000000 is no token",
    ),
    "end in letters": (
        field("eos_token_id", value="2", file="generation_config.json"),
        r"eos_token_id = '2' is no token",
    ),
    "huge video token": (field("video_token_id", value=2**70), r"video_token_id = 1180591.*: exp"),
    "thin processor": (
        text("processor_config.json", '{"processor_class": "Qwen3VLProcessor"}'),
        "the processor cannot be opened",
    ),
    "other patches": (
        field("image_processor", "patch_size", value=16, file="processor_config.json"),
        "patch_size = 16, and the model has 8",
    ),
    "vision heads": (
        field("vision_config", "num_heads", value=7),
        r"num_heads = 7 does not divide hidden_size = \d+ of qwen3_vl",
    ),
    "half a template": (text("chat_template.jinja", "{% for"), "cannot encode a question"),
    "no image token": (
        text("chat_template.jinja", "{{ 'a' }}"),
        "cannot encode a question|it writes no token for an image",  # as transformers notices it
    ),
    "long text": (text("chat_template.jinja", "{{ 'a' * 10**8 }}"), "writes 100000000 letters"),
    "endless macro": (
        text("chat_template.jinja", "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}"),
        "cannot encode a question",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_later_stages_could_not_open_is_refused(folder: Path, name: str) -> None:
    change, reason = REFUSED[name]
    change(folder)
    with pytest.raises(InputError, match=reason) as caught:
        check(folder)
    assert str(caught.value).startswith(str(folder)) and "\n" not in str(caught.value)


def test_a_template_may_not_take_minutes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    text("chat_template.jinja", loop)(folder)
    monkeypatch.setattr(opened, "TEMPLATE_SECONDS", 0.5)
    begin = time.monotonic()
    with pytest.raises(InputError, match=r"the chat template took more than 0\.5 seconds"):
        check(folder)
    assert time.monotonic() - begin < 5


def test_a_model_that_opened_is_not_opened_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(folder)
    monkeypatch.setattr(Checkpoint, "check_opens", None)
    check(folder)
    (folder / "chat_template.jinja").write_text("{# other #}")
    with pytest.raises(TypeError):
        check(folder)


def test_bounds_that_training_alone_has_are_checked_too(tmp_path: Path) -> None:
    folder = family_processors.save("idefics3", tmp_path / "model")
    check(folder)
    fault = r"finetune.min_pixels = 784, finetune.max_pixels = 50176: .*leave min_pixels and max_p"
    with pytest.raises(InputError, match=fault):
        check(folder, tuned=(784, 50176))


def test_a_layer_of_multi_token_prediction_is_not_counted(folder: Path) -> None:
    checkpoint = Checkpoint(folder)
    before, shares = checkpoint.parameters, checkpoint.layers.parameters()
    tensors = load_file(folder / SINGLE)
    tensors[f"{PREFIX}.24.eh_proj.weight"] = torch.zeros(9, 9)
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    assert f"{PREFIX}.24.eh_proj.weight" in checkpoint_tensors(folder)
    assert Checkpoint(folder).parameters == before
    assert Checkpoint(folder).layers.parameters() == shares


def test_a_token_without_an_embedding_is_named(folder: Path) -> None:
    check(folder)
    known = json.loads((folder / CONFIG).read_text())["text_config"]["vocab_size"]
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    added = tokenizer["added_tokens"][0] | {"id": known, "content": "<box>", "special": False}
    tokenizer["added_tokens"].append(added)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(InputError, match=rf"model: .* '<box>' as token {known}, .* knows {known};"):
        check(folder)


def test_the_end_of_answers_comes_from_the_configuration_without_one_for_generation(
    folder: Path,
) -> None:
    (folder / "generation_config.json").unlink()
    check(folder)
    field("eos_token_id", value=[10**6])(folder)
    field(TEXT, "eos_token_id", value=[10**6])(folder)
    with pytest.raises(InputError, match="eos_token_id = 1000000 is no token"):
        check(folder)
