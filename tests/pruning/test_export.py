"""What `export` writes is the dense model without some layers, to the last bit."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from plans import PLAN, PREFIX, digests, make_plan, printed, weights
from safetensors.torch import load_file, save_file

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import ContractError, InputError
from interlace.model.bypass import bypass
from interlace.model.chat import collate, encode_prompt
from interlace.model.files import INDEX, SINGLE
from interlace.model.open import open_model
from interlace.pruning import export as exporting
from interlace.pruning.export import export_checkpoint


@torch.inference_mode()
def logits(model: Any, processor: Any) -> torch.Tensor:
    examples = [encode_prompt(processor, row) for row in models.rows(4)]
    batch = collate(examples, pad_token_id=0)
    del batch["labels"]
    return model(**batch).logits


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
    export_checkpoint(dense_dir, make_plan([3], []), tmp_path / "pruned", max_shard_mb=0.001)
    assert all(load_file(path) for path in (tmp_path / "pruned").glob("*.safetensors"))


def test_the_files_of_the_dense_weights_do_not_matter(
    copied: Path, pruned_dir: Path, tmp_path: Path
) -> None:
    tensors = load_file(copied / SINGLE)
    (copied / SINGLE).unlink()
    weight_map = {name: f"part-{i % 3}.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in set(weight_map.values()):
        shard = {name: tensors[name] for name in tensors if weight_map[name] == file}
        save_file(shard, copied / file, metadata={"format": "pt"})
    (copied / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    export_checkpoint(copied, PLAN, tmp_path / "pruned", max_shard_mb=0.05)
    assert digests(tmp_path / "pruned") == digests(pruned_dir)


def test_companions_come_along_and_pickles_do_not(copied: Path, tmp_path: Path) -> None:
    refused = {"pytorch_model.bin", "training_args.bin", ".hidden.json"}
    for name in {"LICENSE", "merges.txt"} | refused:
        (copied / name).write_text(name)
    export_checkpoint(copied, PLAN, tmp_path / "pruned")
    names = {path.name for path in (tmp_path / "pruned").iterdir()}
    promised = {"LICENSE", "merges.txt", "chat_template.jinja", "tokenizer.json"}
    assert promised | {"generation_config.json", "processor_config.json"} <= names
    assert not names & refused


def test_a_tokenizer_is_written_as_older_transformers_reads_it(
    dense_dir: Path, pruned_dir: Path
) -> None:
    from transformers import AutoTokenizer

    newer, both = (
        json.loads((folder / "tokenizer_config.json").read_text())
        for folder in (dense_dir, pruned_dir)
    )
    tokens = newer["extra_special_tokens"]
    assert tokens and "extra_special_tokens" not in both
    assert both["additional_special_tokens"] == tokens
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (dense_dir, pruned_dir)]
    assert {type(tokenizer) for tokenizer in tokenizers} == {type(tokenizers[0])}
    text = f"{tokens[0]} What number {tokens[-1]} 42"
    assert [tokenizer(text) for tokenizer in tokenizers] == [tokenizers[0](text)] * 2
    assert [tokenizer.extra_special_tokens for tokenizer in tokenizers] == [tokens] * 2


def test_a_tokenizer_in_the_older_spelling_keeps_its_bytes(copied: Path, tmp_path: Path) -> None:
    older = b'{ "tokenizer_class" : "PreTrainedTokenizerFast", "pad_token": "<|endoftext|>" }'
    (copied / "tokenizer_config.json").write_bytes(older)
    export_checkpoint(copied, PLAN, tmp_path / "pruned")
    assert (tmp_path / "pruned/tokenizer_config.json").read_bytes() == older


def fail_to_write(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the second weight file fail."""
    write_tensors, files = exporting.write_tensors, []

    def failing(path: Path, *args: Any, **kwargs: Any) -> None:
        files.append(path)
        if len(files) == 2:
            raise OSError(number, os.strerror(number))
        write_tensors(path, *args, **kwargs)

    monkeypatch.setattr(exporting, "write_tensors", failing)


def refuse(written: Path) -> None:
    assert {"config.json", INDEX, "tokenizer.json"} <= digests(written).keys()
    raise ContractError("it differs")


@pytest.mark.parametrize(
    ("number", "check", "kind", "said"),
    [
        (errno.ENOSPC, None, InputError, "pruned: could not be written: No space left on device; "),
        (errno.EDQUOT, None, InputError, "pruned: could not be written: Disk quota exceeded; free"),
        (errno.EFBIG, None, InputError, "pruned: could not be written: File too large; free disk"),
        (errno.EIO, None, OSError, "Input/output error"),
        (0, refuse, ContractError, "it differs"),
    ],
)
def test_a_failed_export_leaves_the_last_one(
    dense_dir: Path,
    pruned_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    check: Callable[[Path], None] | None,
    kind: type[Exception],
    said: str,
) -> None:
    out = shutil.copytree(pruned_dir, tmp_path / "pruned")
    if not check:
        fail_to_write(monkeypatch, number)
    with pytest.raises(kind, match=said):
        export_checkpoint(dense_dir, make_plan([0], [1]), out, max_shard_mb=0.05, check=check)
    assert digests(out) == digests(pruned_dir)
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


def test_export_returns_the_result_of_the_check(dense_dir: Path, tmp_path: Path) -> None:
    assert export_checkpoint(dense_dir, PLAN, tmp_path / "a") == {}
    assert export_checkpoint(dense_dir, PLAN, tmp_path / "b", check=lambda _: "fine") == "fine"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_weights_are_stored_in_the_type_of_the_parameter(
    dense_dir: Path, tmp_path: Path, dtype: str
) -> None:
    from transformers import AutoModelForImageTextToText

    export_checkpoint(dense_dir, PLAN, tmp_path / "pruned", dtype=dtype, max_shard_mb=0.05)
    dense, stored = weights(dense_dir), Checkpoint(tmp_path / "pruned").layers
    for name, value in weights(tmp_path / "pruned").items():
        dense_name = name
        if layer_and_weight := stored.split(name):
            dense_name = stored.name(PLAN.keep[layer_and_weight[0]], layer_and_weight[1])
        assert torch.equal(value, dense.pop(dense_name).to(getattr(torch, dtype)))
    assert all(name.startswith((f"{PREFIX}.3.", f"{PREFIX}.5.")) for name in dense)
    for path in (tmp_path / "pruned").glob("*.safetensors"):
        assert path.stat().st_size < 0.05 * 2**20 + 20_000 or len(load_file(path)) == 1
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "pruned", dtype="auto")
    assert {str(weight.dtype) for weight in model.parameters()} == {f"torch.{dtype}"}
    assert str(model.config.dtype) == f"torch.{dtype}"


def test_replaced_values_are_stored_under_the_new_name(
    dense_dir: Path, pruned_dir: Path, tmp_path: Path
) -> None:
    old, new = (f"{PREFIX}.{layer}.mlp.down_proj.weight" for layer in (4, 3))
    value, file = torch.randn(weights(dense_dir)[old].shape), tmp_path / "new.safetensors"
    save_file({old: value, "other": torch.zeros(2)}, file)
    export_checkpoint(dense_dir, PLAN, tmp_path / "pruned", replaced={old: file})
    expected = weights(pruned_dir) | {new: value}
    stored = weights(tmp_path / "pruned")
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[name], expected[name]) for name in expected)


def test_a_vision_tower_as_deep_and_wide_as_the_decoder_is_told_apart(tmp_path: Path) -> None:
    folder = models.tiny_qwen3_vl(tmp_path / "dense", layers=3, vision_hidden=32)
    assert Checkpoint(folder).config["vision_config"]["depth"] == 3
    checkpoint = Checkpoint(folder)
    for tensors in (checkpoint.tensors, dict(reversed(checkpoint.tensors.items()))):
        vars(checkpoint).update(tensors=tensors)
        assert checkpoint.layers.prefix == PREFIX
        del vars(checkpoint)["layers"]


FLAGS = [(outer, inner) for outer in (True, False, None) for inner in (True, False, None)]


@pytest.mark.parametrize("head", ["no head", "the embeddings again", "a head of its own"])
@pytest.mark.parametrize(("outer", "inner"), FLAGS)
def test_heads_are_tied_as_in_the_dense_model(
    copied: Path,
    processor: Any,
    tmp_path: Path,
    outer: bool | None,
    inner: bool | None,
    head: str,
) -> None:
    """Whatever the two flags say; `None`: the flag is not there."""
    config = json.loads((copied / "config.json").read_text())
    for level, flag in ((config, outer), (config["text_config"], inner)):
        level.pop("tie_word_embeddings", None)
        level |= {} if flag is None else {"tie_word_embeddings": flag}
    (copied / "config.json").write_text(json.dumps(config))
    tensors = load_file(copied / SINGLE)
    if head != "no head":
        embeddings = tensors["model.language_model.embed_tokens.weight"]
        other = torch.randn(embeddings.shape)
        tensors["lm_head.weight"] = other if head == "a head of its own" else embeddings.clone()
        save_file(tensors, copied / SINGLE, metadata={"format": "pt"})
    try:
        bypassed = open_model(copied)
    except InputError as error:  # an untied model without a head
        assert head == "no head" and "the weights lack lm_head.weight" in str(error)
        return
    bypass(bypassed, PLAN.drop)
    export_checkpoint(copied, PLAN, tmp_path / "pruned")
    written = json.loads((tmp_path / "pruned/config.json").read_text())
    assert written["tie_word_embeddings"] is written["text_config"]["tie_word_embeddings"]
    reloaded = open_model(tmp_path / "pruned")
    assert torch.equal(logits(reloaded, processor), logits(bypassed, processor))
