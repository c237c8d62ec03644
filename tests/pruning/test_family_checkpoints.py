"""Of every family: what `export` writes is the dense model without some layers, to the last bit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import answered_samples
import family_decoders
import family_models
import pytest
import torch
from plans import make_plan
from safetensors.torch import load_file, save_file

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.config import tied_head
from interlace.checkpoint.replace import as_stored
from interlace.checkpoint.safetensors import tensor_files
from interlace.errors import InputError
from interlace.model.bypass import bypassed
from interlace.model.chat import PER_TOKEN
from interlace.model.decoder import decoder_layers, decoder_prefix
from interlace.model.families import (
    architecture,
    decoder_kind,
    vision_token_ids,
)
from interlace.model.open import auto_model, open_model
from interlace.model.rules import DECODERS, FAMILIES
from interlace.model.states import reference_states, residual_states
from interlace.params.healing import Also
from interlace.pruning import compensation, sparsity
from interlace.pruning.export import export_checkpoint
from interlace.pruning.new_values import CheckpointStore
from interlace.samples.answered_rows import AnsweredRows
from interlace.training.also import weights_of

MIDDLE = [1, 3]  # dropped layers
GENERATED = 5  # tokens
SPECIAL = list(range(family_models.IMAGE, family_decoders.VOCABULARY))  # never generated


@dataclass(frozen=True)
class Dense:
    """A tiny model, where it is saved, and what it is run on."""

    folder: Path
    model: Any
    inputs: dict[str, torch.Tensor]

    @property
    def n_layers(self) -> int:
        return len(decoder_layers(self.model))

    def without(self, drop: list[int]) -> Path:
        """The checkpoint that `export` writes without some layers."""
        out = self.folder.with_name("-".join(map(str, drop)))
        if not out.exists():
            export_checkpoint(self.folder, make_plan(drop, [], self.n_layers), out)
        return out


def opened(name: str, folder: Path) -> Dense:
    family_models.save(name, folder)
    return Dense(folder, open_model(folder, dtype="float32"), family_models.inputs(name))


@pytest.fixture(scope="module", params=family_models.TINY)
def dense(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Dense:
    return opened(request.param, tmp_path_factory.mktemp("family") / "dense")


with_images = pytest.mark.parametrize("dense", family_models.WITH_IMAGES, indirect=True)


@torch.inference_mode()
def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs).logits


def generated(model: Any, inputs: dict[str, torch.Tensor], cache: bool) -> torch.Tensor:
    return model.generate(
        **inputs,
        use_cache=cache,
        do_sample=False,
        min_new_tokens=GENERATED,
        max_new_tokens=GENERATED,
        suppress_tokens=SPECIAL,
    )[:, inputs["input_ids"].shape[1] :]


@pytest.mark.parametrize("layer", [0, -1])
def test_logits_are_those_without_the_layer(dense: Dense, layer: int) -> None:
    drop = [layer % dense.n_layers]
    pruned_logits = logits(open_model(dense.without(drop), dtype="float32"), dense.inputs)
    with bypassed(dense.model, drop):
        assert torch.equal(pruned_logits, logits(dense.model, dense.inputs))
    assert not torch.equal(pruned_logits, logits(dense.model, dense.inputs))


def test_cached_generation_is_that_without_cache(dense: Dense) -> None:
    reloaded = open_model(dense.without(MIDDLE), dtype="float32")
    uncached = generated(reloaded, dense.inputs, cache=False)
    assert uncached.shape == (1, GENERATED)
    assert torch.equal(generated(reloaded, dense.inputs, cache=True), uncached)
    with bypassed(dense.model, MIDDLE):
        assert torch.equal(generated(dense.model, dense.inputs, cache=True), uncached)


def test_stock_transformers_misses_nothing(dense: Dense) -> None:
    folder = dense.without(MIDDLE)
    _, loading = auto_model(folder).from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values())


@with_images
def test_the_picture_matters(dense: Dense) -> None:
    other = dense.inputs | {"pixel_values": -dense.inputs["pixel_values"]}
    assert not torch.equal(logits(dense.model, other), logits(dense.model, dense.inputs))


def test_a_model_is_as_it_was_after_a_bypass(dense: Dense) -> None:
    n_layers, before = dense.n_layers, dense.model.config.to_dict()
    expected = logits(dense.model, dense.inputs)
    with bypassed(dense.model, [1]):
        assert dense.n_layers == n_layers - 1
        assert dense.model.config.to_dict() != before
    assert dense.model.config.to_dict() == before
    assert torch.equal(logits(dense.model, dense.inputs), expected)
    for number, layer in enumerate(decoder_layers(dense.model)):
        found = {m.layer_idx for m in layer.modules() if hasattr(m, "layer_idx")}
        assert found == {number}


def test_reference_states_are_the_inputs_of_the_next_layers(dense: Dense) -> None:
    with torch.inference_mode():
        x, y = residual_states(dense.model, dense.inputs)
        inputs, outputs = reference_states(dense.model, dense.inputs)
    assert all(map(torch.equal, (*inputs, outputs[-1]), x)) and len(inputs) == len(outputs)
    differing = [i for i in range(dense.n_layers - 1) if not torch.equal(outputs[i], y[i])]
    config = json.loads((dense.folder / "config.json").read_text())
    assert bool(differing) == bool(architecture(config, "").deepstack_layers)


def test_trained_weights_are_written_as_they_are_stored(dense: Dense) -> None:
    checkpoint = Checkpoint(dense.folder)
    layer = f"{decoder_prefix(dense.model)}.1."
    values = {n: weight for n, weight in dense.model.named_parameters() if n.startswith(layer)}
    for name in get_args(Also):
        values |= weights_of(name, dense.model)
    tensors = as_stored(checkpoint, checkpoint.check_opens(), values)
    stored = load_file(dense.folder / "model.safetensors")
    assert len(tensors) >= len(values)
    assert all(torch.equal(value, stored[name]) for name, value in tensors.items())


def test_the_head_is_trained_where_config_json_does_not_tie_it(dense: Dense) -> None:
    tied = tied_head(Checkpoint(dense.folder).config, "config.json")
    assert [weight.shape[0] for weight in weights_of("lm_head", dense.model).values()] == (
        [] if tied else [family_decoders.VOCABULARY]
    )


@with_images
def test_tokens_of_the_picture_are_told_from_text(dense: Dense) -> None:
    assert family_models.IMAGE in vision_token_ids(dense.model.config)


@pytest.mark.parametrize("drop", [[0, 1, 3, 4], [2]])
def test_a_hybrid_s_layers_of_either_kind_may_go(tmp_path: Path, drop: list[int]) -> None:
    dense = opened("qwen3_5", tmp_path / "dense")  # layers 2 and 5 have full attention
    reloaded = open_model(dense.without(drop), dtype="float32")
    with bypassed(dense.model, drop):
        assert torch.equal(logits(reloaded, dense.inputs), logits(dense.model, dense.inputs))
    cached, uncached = (generated(reloaded, dense.inputs, cache) for cache in (True, False))
    assert torch.equal(cached, uncached)


@pytest.mark.parametrize(("name", "drop"), [("qwen3_5", [2, 5]), ("lfm2_vl", [1, 3, 4])])
def test_a_hybrid_keeps_a_layer_with_attention(tmp_path: Path, name: str, drop: list[int]) -> None:
    dense = opened(name, tmp_path / "dense")
    with pytest.raises(InputError, match=r"layer_types: only (conv|linear_attention) layers"):
        dense.without(drop)


def test_layers_after_the_decoder_s_last_are_not_written(tmp_path: Path) -> None:
    dense = opened("glm4v_moe", tmp_path / "dense")
    weights, config = dense.folder / "model.safetensors", dense.folder / "config.json"
    tensors = load_file(weights)
    last = {name: value for name, value in tensors.items() if ".layers.5." in name}
    assert last
    predicting = {name.replace(".layers.5.", ".layers.6."): v.clone() for name, v in last.items()}
    norm = next(name for name in predicting if name.endswith(".input_layernorm.weight"))
    predicting[norm.replace("input_layernorm", "enorm")] = predicting[norm].clone()
    save_file(tensors | predicting, weights, metadata={"format": "pt"})
    written = json.loads(config.read_text())
    written["text_config"]["num_nextn_predict_layers"] = 1
    config.write_text(json.dumps(written))
    pruned = dense.without([1])
    assert not any(".layers.5." in name for name in tensor_files(pruned))
    text = json.loads((pruned / "config.json").read_text())["text_config"]
    assert (text["num_hidden_layers"], text["num_nextn_predict_layers"]) == (5, 0)


def same_rows(dense: Dense, folder: Path) -> AnsweredRows:
    """Four times the row that the model is run on, with answers, of which one judges."""
    labels = dense.inputs["input_ids"].roll(1)
    per_token = {name: value[0] for name, value in dense.inputs.items() if name in PER_TOKEN}
    return answered_samples.saved([dense.inputs | per_token | {"labels": labels[0]}] * 4, folder)


WITH_EXPERTS = {name for name in family_models.TINY if "moe" in name or "kimi" in name}
WITH_EXPERTS |= {"internvl, gpt_oss", "gpt_oss", "mixtral", "deepseek_v3"}
AT_OTHER_LAYERS = {  # than those before dropped ones
    "qwen3_vl_moe, every second layer sparse",
    "qwen3_moe",
}
NORMALISING = {"paligemma, gemma2", "gemma3", "glm4v", "glm46v"}
NORMALISING |= {"exaone4", "gemma2", "gemma3_text", "glm4", "olmo2", "olmo3"}


@pytest.mark.usefixtures("every_map_kept")
def test_dropped_layers_are_made_up_for_or_refused(
    dense: Dense, request: Any, tmp_path: Path
) -> None:
    stored = Checkpoint(dense.folder).layers
    store = CheckpointStore(stored, tmp_path)
    inputs = (dense.model, MIDDLE, same_rows(dense, tmp_path / "rows"), store)
    name = request.node.callspec.params["dense"]
    if name in NORMALISING | WITH_EXPERTS - AT_OTHER_LAYERS:
        why = "normalises" if name in NORMALISING else "has an MLP that does not end in one linear"
        layer = r"^export\.compensate = lstsq: layer [02], a \w+"
        with pytest.raises(InputError, match=f"{layer}, {why}"):
            compensation.compensate(*inputs)
        return
    result = compensation.compensate(*inputs)
    fitted = [report for report in result.reports if report.ridge]
    assert all(report.kept for report in fitted)
    assert [report.cut for report in fitted if report.cut] == [[1], [3]]
    assert all("linear" in report.reason for report in result.reports if not report.ridge)
    replaced = store.replaced(result.reports)
    out = tmp_path / "out"
    export_checkpoint(dense.folder, make_plan(MIDDLE, [], dense.n_layers), out, replaced=replaced)
    compensated = logits(open_model(out, dtype="float32"), dense.inputs)
    with compensation.pruned(dense.model, MIDDLE, result.weights):
        assert torch.equal(compensated, logits(dense.model, dense.inputs))
    with bypassed(dense.model, MIDDLE):
        assert not torch.equal(compensated, logits(dense.model, dense.inputs))


def test_weights_become_sparse_or_are_refused(dense: Dense, request: Any, tmp_path: Path) -> None:
    stored, rows = Checkpoint(dense.folder).layers, same_rows(dense, tmp_path / "rows")
    model = open_model(dense.folder, dtype="float32")
    if request.node.callspec.params["dense"] in WITH_EXPERTS:
        with pytest.raises(InputError, match=r"keeps matrices in \S+, a \w+, which is no linear"):
            sparsity.sparsify(model, stored, rows, tmp_path)
        return
    replaced = sparsity.sparsify(model, stored, rows, tmp_path)
    out = tmp_path / "out"
    export_checkpoint(dense.folder, make_plan([], [], dense.n_layers), out, replaced=replaced)
    sparse = logits(open_model(out, dtype="float32"), dense.inputs)
    assert torch.equal(sparse, logits(model, dense.inputs))
    assert not torch.equal(sparse, logits(dense.model, dense.inputs))


def test_every_family_and_decoder_has_a_tiny_model() -> None:
    configs = [tiny.config for tiny in family_models.ALL.values()]
    tried = {(config["model_type"], decoder_kind(config, "c")) for config in configs}
    assert tried == {(name, kind) for name, family in FAMILIES.items() for kind in family.decoders}
    assert {kind for _, kind in tried} == set(DECODERS)
