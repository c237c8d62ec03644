"""What `export` writes is the dense model without some layers, to the last bit."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import interlace
from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.safetensors import INDEX, tensor_files, write_tensors
from interlace.errors import ContractError, InputError
from interlace.model.bypass import bypass
from interlace.model.chat import collate, encode_prompt
from interlace.model.open import open_model
from interlace.plan.record import Plan, Shortfall
from interlace.pruning import export as checkpoint

ROOT = Path(__file__).parents[2]
LAYERS = 6
PREFIX = "model.language_model.layers"
PLANS = {
    "one": ([4], [3]),
    "two apart": ([3, 5], [4]),
    "the last": ([5], [4]),
    "a deepstack layer": ([1, 4], [2]),
    "the first": ([0], [1]),
    "all but two": ([1, 2, 3, 4], [0, 5]),
}


def make_plan(drop: list[int], tune: list[int], n_layers: int = LAYERS) -> Plan:
    return Plan(
        method="interlace",
        ratio=0.25,
        n_layers=n_layers,
        drop=drop,
        tune=tune,
        freeze=[i for i in range(n_layers) if i not in drop + tune],
        groups=[],
        protected=[],
        shortfall=Shortfall(policy="pairs", wanted=len(drop), triplets=0, pairs=0, missing=0),
        sources={},
    )


PLAN = make_plan([3, 5], [2, 4])


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


@pytest.fixture(scope="module")
def pruned_dir(dense_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers 3 and 5 gone, 2 and 4 to be tuned, in files of at most 0.05 MiB."""
    out = tmp_path_factory.mktemp("export") / "pruned"
    interlace.export(dense_dir, PLAN, out, max_shard_mb=0.05)
    return out


def printed(code: str, folder: Path) -> str:
    """What a fresh Python prints that runs some code in a folder."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


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


def test_dropping_a_layer_changes_the_logits(dense: Any, pruned_dir: Path, processor: Any) -> None:
    difference = logits(open_model(pruned_dir), processor) - logits(dense, processor)
    assert difference.abs().max() > 1e-3


def test_logits_of_qwen2_5_vl_are_those_without_the_layers(tmp_path: Path) -> None:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    text = {
        "vocab_size": 50,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "use_sliding_window": True,
        "sliding_window": 4,
        "max_window_layers": 3,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [2, 3, 3],
        },
    }
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_heads": 2,
        "out_hidden_size": 32,
        "patch_size": 8,
        "fullatt_block_indexes": [1],
    }
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(tmp_path / "dense")
    interlace.export(tmp_path / "dense", PLAN, tmp_path / "pruned")
    bypassed, reloaded = open_model(tmp_path / "dense"), open_model(tmp_path / "pruned")
    bypass(bypassed, PLAN.drop)
    ids = torch.arange(20)[None] + 5
    with torch.inference_mode():
        assert torch.equal(reloaded(input_ids=ids).logits, bypassed(input_ids=ids).logits)
    kinds = reloaded.config.get_text_config(decoder=True).layer_types
    assert kinds == ["full_attention"] * 3 + ["sliding_attention"]


def test_untied_heads_are_carried_on(dense_dir: Path, processor: Any, tmp_path: Path) -> None:
    source = tmp_path / "dense"
    shutil.copytree(dense_dir, source)
    config = json.loads((source / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    (source / "config.json").write_text(json.dumps(config))
    tensors = load_file(source / "model.safetensors")
    embedding = tensors["model.language_model.embed_tokens.weight"]
    tensors["lm_head.weight"] = torch.randn(embedding.shape)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    interlace.export(source, PLAN, tmp_path / "pruned")
    reloaded, bypassed = open_model(tmp_path / "pruned"), open_model(source)
    bypass(bypassed, PLAN.drop)
    assert torch.equal(reloaded.lm_head.weight, tensors["lm_head.weight"])
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


def test_the_folder_opens_with_stock_transformers(pruned_dir: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, loading = AutoModelForImageTextToText.from_pretrained(
        pruned_dir, output_loading_info=True
    )
    assert model.config.text_config.num_hidden_layers == 4
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert AutoProcessor.from_pretrained(pruned_dir).chat_template


def test_kept_layers_are_renumbered_without_gaps(pruned_dir: Path) -> None:
    numbers = {
        int(name.removeprefix(f"{PREFIX}.").split(".")[0])
        for name in tensor_files(pruned_dir)
        if name.startswith(PREFIX)
    }
    assert numbers == {0, 1, 2, 3}


def test_the_index_names_every_tensor_where_it_is(pruned_dir: Path) -> None:
    index = json.loads((pruned_dir / INDEX).read_text())
    stored = {}
    for path in pruned_dir.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            stored |= {
                name: (path.name, file.get_tensor(name).nbytes)
                for name in file.keys()  # noqa: SIM118
            }
    assert index["weight_map"] == {name: place for name, (place, _) in sorted(stored.items())}
    assert index["metadata"]["total_size"] == sum(size for _, size in stored.values())


def test_files_are_no_larger_than_asked(pruned_dir: Path) -> None:
    files = list(pruned_dir.glob("*.safetensors"))
    assert len(files) > 3
    for path in files:
        sizes = [tensor.nbytes for tensor in load_file(path).values()]
        assert sum(sizes) <= 0.05 * 2**20 or len(sizes) == 1


def test_tuned_layers_lie_in_files_of_their_own(pruned_dir: Path) -> None:
    tuned = tuple(f"{PREFIX}.{position}." for position in (2, 3))
    for path in set(tensor_files(pruned_dir).values()):
        assert len({name.startswith(tuned) for name in load_file(path)}) == 1


def test_a_plan_that_tunes_nothing_leaves_no_empty_file(dense_dir: Path, tmp_path: Path) -> None:
    interlace.export(dense_dir, make_plan([3], []), tmp_path / "pruned")
    files = list((tmp_path / "pruned").glob("*.safetensors"))
    assert all(load_file(path) for path in files)


def test_exporting_again_writes_the_same_bytes(
    dense_dir: Path, pruned_dir: Path, tmp_path: Path
) -> None:
    interlace.export(dense_dir, PLAN, tmp_path / "again", max_shard_mb=0.05)
    assert digests(tmp_path / "again") == digests(pruned_dir)


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
