"""What `export` writes is the dense model without some layers, to the last bit."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from plans import PLAN, PREFIX, digests, make_plan, printed
from safetensors.torch import load_file, save_file

import interlace
from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.safetensors import INDEX, tensor_files, write_tensors
from interlace.errors import ContractError, InputError
from interlace.model.bypass import bypass
from interlace.model.chat import collate, encode_prompt
from interlace.model.open import open_model
from interlace.pruning import export as checkpoint

PLANS = {  # the families' tests drop others
    "two apart": ([3, 5], [4]),
    "a deepstack layer": ([1, 4], [2]),
    "all but two": ([1, 2, 3, 4], [0, 5]),
}


@torch.inference_mode()
def logits(model: Any, processor: Any) -> torch.Tensor:
    examples = [encode_prompt(processor, row) for row in models.rows(4)]
    batch = collate(examples, pad_token_id=0)
    del batch["labels"]
    return model(**batch).logits


@pytest.mark.parametrize("name", PLANS)
def test_logits_are_those_of_the_dense_model_without_the_layers(
    dense_dir: Path, processor: Any, tmp_path: Path, name: str
) -> None:
    plan = make_plan(*PLANS[name])
    interlace.export(dense_dir, plan, tmp_path / "pruned")
    bypassed = open_model(dense_dir, dtype="float32")
    bypass(bypassed, plan.drop)
    reloaded = open_model(tmp_path / "pruned", dtype="float32")
    assert torch.equal(logits(reloaded, processor), logits(bypassed, processor))


@pytest.mark.parametrize("where", ["reloaded", "bypassed"])
def test_cached_generation_is_that_without_cache(
    pruned_dir: Path, dense_dir: Path, processor: Any, where: str
) -> None:
    model = open_model(pruned_dir if where == "reloaded" else dense_dir)
    if where == "bypassed":
        bypass(model, PLAN.drop)
    examples = [encode_prompt(processor, row) for row in models.rows(4)]
    batch = collate(examples, pad_token_id=processor.tokenizer.pad_token_id, side="left")
    del batch["labels"]
    cached, uncached = (
        model.generate(**batch, use_cache=cache, min_new_tokens=8, max_new_tokens=8)
        for cache in (True, False)
    )
    assert torch.equal(cached, uncached)
    assert cached.shape[1] == batch["input_ids"].shape[1] + 8


def test_tuned_layers_lie_in_small_files_of_their_own_and_all_are_in_the_index(
    pruned_dir: Path,
) -> None:
    index = json.loads((pruned_dir / INDEX).read_text())
    files = {path.name: load_file(path) for path in pruned_dir.glob("*.safetensors")}
    assert len(files) > 3
    for tensors in files.values():
        assert len({name.startswith((f"{PREFIX}.2.", f"{PREFIX}.3.")) for name in tensors}) == 1
        assert sum(t.nbytes for t in tensors.values()) <= 0.05 * 2**20 or len(tensors) == 1
    stored = {name: file for file, tensors in files.items() for name in tensors}
    assert index["weight_map"] == dict(sorted(stored.items()))
    sizes = [t.nbytes for tensors in files.values() for t in tensors.values()]
    assert index["metadata"]["total_size"] == sum(sizes)


def test_a_plan_that_tunes_nothing_leaves_no_empty_file(dense_dir: Path, tmp_path: Path) -> None:
    interlace.export(dense_dir, make_plan([3], []), tmp_path / "pruned")
    files = list((tmp_path / "pruned").glob("*.safetensors"))
    assert all(load_file(path) for path in files)


def test_how_the_dense_weights_were_sharded_does_not_matter(
    dense_dir: Path, pruned_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(dense_dir, tmp_path / "dense")
    tensors = load_file(tmp_path / "dense/model.safetensors")
    (tmp_path / "dense/model.safetensors").unlink()
    weight_map = {name: f"part-{i % 3}.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in set(weight_map.values()):
        held = {name: tensors[name] for name in tensors if weight_map[name] == file}
        save_file(held, tmp_path / "dense" / file, metadata={"format": "pt"})
    (tmp_path / "dense" / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    interlace.export(tmp_path / "dense", PLAN, tmp_path / "pruned", max_shard_mb=0.05)
    assert digests(tmp_path / "pruned") == digests(pruned_dir)


def test_companions_come_along_and_pickles_do_not(dense_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(dense_dir, tmp_path / "dense")
    for name in ("LICENSE", "merges.txt", "pytorch_model.bin", "training_args.bin", ".hidden.json"):
        (tmp_path / "dense" / name).write_text(name)
    interlace.export(tmp_path / "dense", PLAN, tmp_path / "pruned")
    names = {path.name for path in (tmp_path / "pruned").iterdir()}
    promised = {"LICENSE", "merges.txt", "chat_template.jinja", "tokenizer.json"}
    assert promised | {"generation_config.json", "processor_config.json"} <= names
    assert not names & {"pytorch_model.bin", "training_args.bin", ".hidden.json"}


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.ENOSPC, InputError, "pruned: could not be written: No space left on device; free"),
        (errno.EDQUOT, InputError, "pruned: could not be written: Disk quota exceeded; free"),
        (errno.EIO, OSError, "Input/output error"),
    ],
)
def test_a_failed_export_leaves_the_last_one(
    dense_dir: Path,
    pruned_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[Exception],
    said: str,
) -> None:
    shutil.copytree(pruned_dir, tmp_path / "pruned")
    calls = []

    def failing(*args: Any, **kwargs: Any) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise OSError(number, os.strerror(number))
        write_tensors(*args, **kwargs)

    monkeypatch.setattr(checkpoint, "write_tensors", failing)
    with pytest.raises(kind, match=said):
        interlace.export(dense_dir, make_plan([0], [1]), tmp_path / "pruned", max_shard_mb=0.05)
    assert digests(tmp_path / "pruned") == digests(pruned_dir)
    assert [path.name for path in tmp_path.iterdir()] == ["pruned"]


def test_export_imports_neither_torch_nor_transformers(dense_dir: Path, tmp_path: Path) -> None:
    """Either alone takes half a gigabyte of memory."""
    code = f"""
import sys
from pathlib import Path
import interlace
from interlace.plan.record import read_plan
plan = read_plan(Path("plan.json"))
interlace.export({str(dense_dir)!r}, plan, "kept")
interlace.export({str(dense_dir)!r}, plan, "halved", dtype="bfloat16")
print({{"torch", "transformers"}} & set(sys.modules))
"""
    (tmp_path / "plan.json").write_text(PLAN.model_dump_json())
    assert printed(code, tmp_path) == "set()\n"


def test_a_folder_that_the_check_refuses_is_not_put_in_place(
    dense_dir: Path, pruned_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(pruned_dir, tmp_path / "pruned")
    seen = []

    def refuse(written: Path) -> dict[str, Any]:
        seen.append(digests(written).keys())
        raise ContractError("it differs")

    with pytest.raises(ContractError, match="it differs"):
        interlace.export(dense_dir, make_plan([0], [1]), tmp_path / "pruned", check=refuse)
    assert {"config.json", INDEX, "tokenizer.json"} <= seen[0]
    assert digests(tmp_path / "pruned") == digests(pruned_dir)
    assert [path.name for path in tmp_path.iterdir()] == ["pruned"]


def test_export_returns_what_the_check_found(dense_dir: Path, tmp_path: Path) -> None:
    assert interlace.export(dense_dir, PLAN, tmp_path / "a") == {}
    found = interlace.export(dense_dir, PLAN, tmp_path / "b", check=lambda _: {"samples": 3})
    assert found == {"samples": 3}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_weights_are_stored_in_the_type_asked_for(
    dense_dir: Path, tmp_path: Path, dtype: str
) -> None:
    from transformers import AutoModelForImageTextToText

    interlace.export(dense_dir, PLAN, tmp_path / "pruned", dtype=dtype, max_shard_mb=0.05)
    wanted = getattr(torch, dtype)
    kept = {
        name: value
        for path in dense_dir.glob("*.safetensors")
        for name, value in load_file(path).items()
    }
    for path in set(tensor_files(tmp_path / "pruned").values()):
        stored = load_file(path)
        assert path.stat().st_size < 0.05 * 2**20 + 20_000 or len(stored) == 1
        for name, value in stored.items():
            layer = name.removeprefix(f"{PREFIX}.").split(".")[0]
            old = name
            if name.startswith(PREFIX):
                old = name.replace(f"{PREFIX}.{layer}.", f"{PREFIX}.{PLAN.keep[int(layer)]}.")
            assert torch.equal(value, kept[old].to(wanted))
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "pruned", dtype="auto")
    assert {weight.dtype for weight in model.parameters()} == {wanted}
    assert model.config.dtype == wanted


def test_replaced_values_are_stored_under_the_new_name(dense_dir: Path, tmp_path: Path) -> None:
    old, new = (f"{PREFIX}.{layer}.mlp.down_proj.weight" for layer in (4, 3))
    value = torch.randn(load_file(dense_dir / "model.safetensors")[old].shape)
    save_file({old: value, "other": torch.zeros(2)}, tmp_path / "new.safetensors")
    interlace.export(
        dense_dir, PLAN, tmp_path / "pruned", replaced={old: tmp_path / "new.safetensors"}
    )
    assert torch.equal(load_file(tensor_files(tmp_path / "pruned")[new])[new], value)
    interlace.export(dense_dir, PLAN, tmp_path / "plain")
    one, other = (
        {n: v for p in folder.glob("*.safetensors") for n, v in load_file(p).items()}
        for folder in (tmp_path / "pruned", tmp_path / "plain")
    )
    assert [name for name in one if not torch.equal(one[name], other[name])] == [new]
    assert "other" not in one


def test_a_vision_tower_as_deep_and_wide_as_the_decoder_is_told_apart(tmp_path: Path) -> None:
    folder = models.tiny_qwen3_vl(tmp_path / "dense", layers=3, vision_hidden=32)
    config = json.loads((folder / "config.json").read_text())
    assert config["vision_config"]["depth"] == 3
    checkpoint = Checkpoint(folder)
    for tensors in (checkpoint.tensors, dict(reversed(checkpoint.tensors.items()))):
        vars(checkpoint).update(tensors=tensors)
        assert checkpoint.layers.prefix == PREFIX
        del vars(checkpoint)["layers"]


FLAGS = [(outer, inner) for outer in (True, False, None) for inner in (True, False, None)]
HEADS = ["no head", "the embeddings again", "a head of its own"]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("outer", "inner"), FLAGS)
def test_heads_are_tied_as_in_the_dense_model(
    dense_dir: Path,
    processor: Any,
    tmp_path: Path,
    outer: bool | None,
    inner: bool | None,
    head: str,
) -> None:
    """Whatever the two flags say; none: the flag is not there."""
    source = tmp_path / "dense"
    shutil.copytree(dense_dir, source)
    config = json.loads((source / "config.json").read_text())
    for part, flag in ((config, outer), (config["text_config"], inner)):
        part.pop("tie_word_embeddings", None)
        part |= {} if flag is None else {"tie_word_embeddings": flag}
    (source / "config.json").write_text(json.dumps(config))
    tensors = load_file(source / "model.safetensors")
    if head != "no head":
        embeddings = tensors["model.language_model.embed_tokens.weight"]
        own = torch.randn(embeddings.shape)
        tensors["lm_head.weight"] = own if head == "a head of its own" else embeddings.clone()
        save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    try:
        bypassed = open_model(source)
    except InputError as error:  # an untied model without a head
        assert head == "no head" and "the weights lack lm_head.weight" in str(error)
        return
    bypass(bypassed, PLAN.drop)
    interlace.export(source, PLAN, tmp_path / "pruned")
    written = json.loads((tmp_path / "pruned/config.json").read_text())
    assert written["tie_word_embeddings"] is written["text_config"]["tie_word_embeddings"]
    reloaded = open_model(tmp_path / "pruned")
    assert torch.equal(logits(reloaded, processor), logits(bypassed, processor))
