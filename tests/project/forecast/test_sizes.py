"""The sizes of a model are those of the opened one, from its configuration alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import family_models
import models
import pytest
from plans import PLAN

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.model.decoder import decoder_layers
from interlace.params.healing import Recipe
from interlace.project.forecast.sizes import model_sizes
from interlace.training import lora


@pytest.fixture(scope="module")
def bare(dense_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A model of which nothing but config.json is there."""
    folder = tmp_path_factory.mktemp("bare")
    shutil.copyfile(dense_dir / "config.json", folder / "config.json")
    return Checkpoint(folder)


def test_all_weights_are_counted_once(bare: Checkpoint, dense_dir: Path) -> None:
    assert model_sizes(bare).total == Checkpoint(dense_dir).parameters


def test_a_pruned_model_is_as_large_as_the_exported_one(bare: Checkpoint, pruned_dir: Path) -> None:
    pruned = model_sizes(bare).pruned(len(PLAN.drop))
    assert pruned.total == Checkpoint(pruned_dir).parameters
    assert pruned.n_layers == len(PLAN.keep)


def test_a_head_of_its_own_can_be_trained(tmp_path: Path, bare: Checkpoint) -> None:
    untied = model_sizes(Checkpoint(models.untied_qwen3_vl(tmp_path / "untied", layers=6)))
    assert untied.also["lm_head"] == untied.head
    assert model_sizes(bare).also["lm_head"] == 0
    assert untied.total == model_sizes(bare).total + untied.head


def test_adapters_are_as_many_as_peft_adds(bare: Checkpoint) -> None:
    model = bare.without_weights().requires_grad_(False)
    lora.adapt(model, [1, 4], Recipe(lora_rank=3))
    adapters = sum(p.numel() for n, p in model.named_parameters() if lora.is_adapter(n))
    assert adapters == 3 * 2 * model_sizes(bare).linears


def test_a_token_meets_few_experts(tmp_path: Path) -> None:
    config = family_models.ALL["qwen3_vl_moe"].config
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint = Checkpoint(tmp_path)
    met, held = (config["text_config"][n] for n in ("num_experts_per_tok", "num_experts"))
    experts = active = 0
    for layer in decoder_layers(checkpoint.without_weights()):
        for weight in layer.parameters():
            experts += weight.numel() if weight.ndim == 3 else 0
            active += weight.numel() * (met / held if weight.ndim == 3 else 1)
    sizes = model_sizes(checkpoint)
    assert sizes.active * sizes.n_layers == pytest.approx(active)
    assert experts and sizes.inner == met * config["text_config"]["moe_intermediate_size"]


@pytest.mark.parametrize("name", ["gemma4", "internvl", "kimi_k25", "llama", "paligemma"])
def test_families_name_their_fields_otherwise(name: str, tmp_path: Path) -> None:
    if not family_models.is_known(name):
        pytest.skip(f"this transformers has no {name}")
    (tmp_path / "config.json").write_text(json.dumps(family_models.ALL[name].config))
    sizes = model_sizes(Checkpoint(tmp_path))
    assert 0 < sizes.key <= sizes.query and sizes.inner > 0
    assert (sizes.patch.fixed > 0) == (sizes.outside > 0)


def test_files_tell_the_bytes_of_a_stored_weight(bare: Checkpoint, dense_dir: Path) -> None:
    assert model_sizes(Checkpoint(dense_dir)).stored_bytes == 4
    config = json.loads(bare.config_file.read_text())
    bare.config_file.write_text(json.dumps(config | {"dtype": "bfloat16"}))
    assert model_sizes(Checkpoint(bare.folder)).stored_bytes == 2
