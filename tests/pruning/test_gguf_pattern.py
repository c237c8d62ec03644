"""The kinds of layers are written into a GGUF file, and all else in it stays."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from click.testing import CliRunner
from plans import make_plan

from interlace.checkpoint.config import pruned_config
from interlace.cli import main
from interlace.model.kinds import LayerKinds
from interlace.plan.runtimes import misreadings
from interlace.pruning.gguf_pattern import with_pattern

KEY = "gemma3.attention.sliding_window_pattern"
KINDS = (["sliding_attention"] * 5 + ["full_attention"]) * 2
KEEP = [0, 1, 3, 4, 5, 6, 7, 8, 11]
EMBEDDINGS = np.arange(64, dtype=np.float32).reshape(4, 16)
QUANTISED = np.arange(34, dtype=np.uint8).reshape(1, 34)  # a row of Q8_0: a scale and 32 values


def config(**changes: Any) -> dict[str, Any]:
    dense = {"model_type": "gemma3_text", "num_hidden_layers": 12, "layer_types": KINDS}
    return pruned_config(dense | {"tie_word_embeddings": True} | changes, KEEP, "c")


def save(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def gguf_file(path: Path, arch: str = "gemma3", layers: int = len(KEEP), **scalars: int) -> Path:
    """A file as llama.cpp's converter writes it: fields of several types, and two tensors."""
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(layers)
    writer.add_sliding_window(512)
    writer.add_name("größer")
    writer.add_token_list(["a", "<0xFF>", "ö"])
    writer.add_token_scores([0.5, -1.0, 2.0])
    for name, value in scalars.items():
        writer.add_uint32(f"{arch}.attention.{name}", value)
    writer.add_tensor("token_embd.weight", EMBEDDINGS)
    writer.add_tensor("blk.0.attn_q.weight", QUANTISED, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def contents(path: Path) -> dict[str, Any]:
    """All fields and tensors of a file."""
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {t.name: (t.tensor_type, t.shape.tolist(), t.data.tobytes()) for t in reader.tensors}
    return {n: v for n, v in fields.items() if n != "GGUF.kv_count"} | tensors


def pattern(*words: Any) -> Any:
    return CliRunner().invoke(main, ["gguf-pattern", *map(str, words)])


@pytest.mark.parametrize("scalars", [{}, {"sliding_window_pattern": 6}], ids=["none", "a period"])
def test_the_kinds_are_written_and_all_else_stays(tmp_path: Path, scalars: dict[str, int]) -> None:
    model = save(tmp_path / "model", config())
    file = gguf_file(tmp_path / "m.gguf", **scalars)
    before = contents(file)
    result = pattern(file, "--model", model)
    assert result.exit_code == 0, result.output
    assert "full attention in layers 4, 8, a window in all others" in result.output
    after = contents(file)
    slides = [KINDS[layer] == "sliding_attention" for layer in KEEP]
    assert after.pop(KEY) == slides
    before.pop(KEY, None)
    assert after == before
    field = gguf.GGUFReader(file).fields[KEY]
    assert field.types == [gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.BOOL]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.gguf", "model"]


def test_a_second_time_changes_no_byte(tmp_path: Path) -> None:
    model, file = save(tmp_path / "model", config()), gguf_file(tmp_path / "m.gguf")
    assert pattern(file, "--model", model).exit_code == 0
    once = file.read_bytes()
    assert pattern(file, "--model", model).exit_code == 0
    assert file.read_bytes() == once


def test_the_file_is_of_a_plan_that_is_named_without_it() -> None:
    kinds = LayerKinds(decoder="gemma3_text", fields={"layer_types": tuple(KINDS)})
    plan = make_plan([i for i in range(12) if i not in KEEP], [], 12)
    plan = plan.model_copy(update={"layer_kinds": kinds})
    assert "interlace gguf-pattern" in misreadings(plan)[0]
    assert with_pattern() == ["cohere2", "gemma2", "gemma3_text", "gpt_oss"]


LLAMA = {"model_type": "llama", "num_hidden_layers": 9, "tie_word_embeddings": True}
QWEN = {"model_type": "qwen3_5_text", "num_hidden_layers": 4, "tie_word_embeddings": True}
QWEN |= {"layer_types": [*["linear_attention"] * 3, "full_attention"]}


@pytest.mark.parametrize(
    ("model", "file", "message"),
    [
        (LLAMA, {}, "model: all layers are of one kind; the GGUF file needs no pattern"),
        (QWEN, {}, "model: llama.cpp reads no array of kinds for qwen3_5_text; a pattern is writ"),
        (config(), {"arch": "llama"}, "m.gguf: its architecture is llama, and that of"),
        (config(), {"layers": 12}, "m.gguf: has 12 layers, and"),
    ],
)
def test_a_file_of_another_model_is_refused_and_stays(
    tmp_path: Path, model: dict[str, Any], file: dict[str, Any], message: str
) -> None:
    folder, path = save(tmp_path / "model", model), gguf_file(tmp_path / "m.gguf", **file)
    before = path.read_bytes()
    result = pattern(path, "--model", folder)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert message in line
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no GGUF file at all" * 9, None])
def test_what_is_no_gguf_file_is_named_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    model, file = save(tmp_path / "model", config()), tmp_path / "m.gguf"
    if content is not None:
        file.write_bytes(content)
    result = pattern(file, "--model", model)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {file}: ")


def test_a_cut_file_is_named_in_one_line(tmp_path: Path) -> None:
    model, file = save(tmp_path / "model", config()), gguf_file(tmp_path / "m.gguf")
    whole, tensors = file.read_bytes(), gguf.GGUFReader(file).tensors
    end = max(tensor.data_offset + tensor.n_bytes for tensor in tensors)  # padding follows
    for size in range(8, int(end), 11):
        file.write_bytes(whole[:size])
        result = pattern(file, "--model", model)
        assert result.exit_code == 2, size
        assert len(result.stderr.splitlines()) == 1


def test_a_missing_package_is_named_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    result = pattern(tmp_path / "m.gguf", "--model", save(tmp_path / "model", config()))
    assert result.exit_code == 2
    assert result.stderr.endswith("gguf is not installed; pip install 'interlace-vlm[gguf]'\n")
