"""The kinds of layers in a GGUF file of a pruned model, which llama.cpp's converter leaves out.

llama.cpp then takes them from a fixed period of the dense family. An array in the file replaces the
period (llama.cpp's `load_swa_pattern`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.model.kinds import layer_kinds
from interlace.plan.runtimes import FIXED_PERIODS
from interlace.system.outputs import whole

SLIDING = "sliding_attention"


def write_pattern(file: Path, model: Path) -> list[int]:
    """Write into a GGUF file which layers have a sliding window, and replace it.

    Args:
        file: what llama.cpp's converter made of the checkpoint, quantised or not.
        model: the checkpoint.

    Returns:
        The layers without a sliding window.

    Raises:
        InputError: the package `gguf` is missing, the file is none or of another model, or
            llama.cpp reads no kinds of this family's layers from a file.
    """
    slides, architecture = _sliding_layers(model)
    gguf, scripts = _package(file)
    key = gguf.Keys.Attention.SLIDING_WINDOW_PATTERN.format(arch=architecture)
    value = scripts.MetadataDetails(gguf.GGUFValueType.ARRAY, slides)
    try:
        reader = gguf.GGUFReader(file)
        _check_made_of(reader, file, model, architecture, len(slides))
        with whole(file) as partial:
            writer = gguf.GGUFWriter(partial, architecture, endianess=reader.endianess)
            writer.data_alignment = reader.alignment
            scripts.copy_with_new_metadata(reader, writer, {key: value}, [])
    except (ValueError, IndexError, KeyError) as error:  # also a text that is not UTF-8
        raise InputError(f"{file}: not a GGUF file: {error}; convert {model} again") from None
    return [layer for layer, is_sliding in enumerate(slides) if not is_sliding]


def _sliding_layers(model: Path) -> tuple[list[bool], str]:
    """Return which layers have a sliding window, and llama.cpp's name of the architecture."""
    checkpoint = Checkpoint(model)
    kinds = layer_kinds(
        checkpoint.config, checkpoint.architecture.n_layers, str(checkpoint.config_file)
    )
    if kinds is None:
        raise InputError(f"{model}: all layers are of one kind; the GGUF file needs no pattern")
    names = [rule.gguf for rule in FIXED_PERIODS.get(kinds.decoder, ()) if rule.gguf]
    if not names or "layer_types" not in kinds.fields:
        raise InputError(
            f"{model}: llama.cpp reads no array of kinds for {kinds.decoder}; a pattern is written"
            f" for {', '.join(sorted(with_pattern()))}"
        )
    return [kind == SLIDING for kind in kinds.fields["layer_types"]], names[0]


def with_pattern() -> list[str]:
    """Return the decoders whose kinds llama.cpp reads from an array that its converter lacks."""
    return [name for name, rules in FIXED_PERIODS.items() if any(rule.gguf for rule in rules)]


def _package(file: Path) -> tuple[Any, Any]:
    """Import the package that reads and writes GGUF files."""
    try:
        import gguf
        from gguf.scripts import gguf_new_metadata
    except ImportError:
        raise InputError(
            f"{file}: the package gguf is not installed; pip install 'interlace-vlm[gguf]'"
        ) from None
    return gguf, gguf_new_metadata


def _check_made_of(reader: Any, file: Path, model: Path, architecture: str, n_layers: int) -> None:
    """Refuse a file of another architecture, or of another number of layers."""
    stored = reader.get_field("general.architecture")
    name = stored.contents() if stored else None
    if name != architecture:
        raise InputError(f"{file}: its architecture is {name}, and that of {model} {architecture}")
    count = reader.get_field(f"{architecture}.block_count")
    if count is None or count.contents() != n_layers:
        raise InputError(
            f"{file}: has {count and count.contents()} layers, and {model} has {n_layers}; name the"
            " checkpoint that it was made of with --model"
        )
