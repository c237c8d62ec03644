"""Train the adapters on captions as text, then all together on the tower's own visual tokens.

    python train_decoder.py lora --decoder ../smollm2/model
    python train_decoder.py joint --decoder ../smollm2/model

The first takes no image: a visual token that is exact is its word. It writes lora.safetensors, and
the second joint.safetensors: tower, connector and adapters. Float32 on two processes of one core
each; rows are drawn anew for each step. An interrupted run resumes from its last checkpoint in
.training/.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from adapters import build_adapted, check_weights, load_weights, save_weights, sees
from assemble import check_decoder
from captions import caption, token_of
from drawn_batches import DistortedHandwriting, DrawnRow, draw_rows, held_out_rows
from fitting import Settings, Share, fit, in_parallel, run_key
from questions import SOURCES
from teacher_forcing import backward, teacher_forced
from transformers.utils import logging as transformers_logging

from interlace.errors import InputError
from interlace.model.chat import PER_TOKEN, Inputs, encode_training
from interlace.printable import say
from interlace.system.documents import read_yaml


class Files(NamedTuple):
    """The decoder's folder, the weights to start from, the checkpoint's folder, the result."""

    decoder: Path
    before: list[Path]
    checkpoint: Path
    out: Path


Encode = Callable[[DrawnRow, Any], Inputs]
WEIGHTS = {"lora": "lora.safetensors", "joint": "joint.safetensors"}


def encode_with_images(row: DrawnRow, processor: Any) -> Inputs:
    """Encode a row as interlace encodes it."""
    return encode_training(processor, row.as_fine_vision())


def encode_with_captions(row: DrawnRow, processor: Any) -> Inputs:
    """Encode a row as text alone: its image tokens become the words of the captions."""
    inputs = encode_with_images(row, processor)
    words = [word for drawing in row.drawings for word in caption(drawing)]
    tokens = [token_of(word, processor.tokenizer) for word in words]
    ids = inputs["input_ids"].clone()
    ids[ids == processor.image_token_id] = torch.tensor(tokens, dtype=ids.dtype)
    return {name: inputs[name] for name in PER_TOKEN & inputs.keys()} | {"input_ids": ids}


ENCODE: dict[str, Encode] = {"lora": encode_with_captions, "joint": encode_with_images}


def train(share: Share, name: str, params: Settings, files: Files) -> None:
    """Train in one of the processes; the first one writes the weights."""
    model, processor = build_adapted(files.decoder, params)
    for path in files.before:
        load_weights(model, path)
    if name == "joint":
        for weight_name, weight in model.named_parameters():
            weight.requires_grad |= sees(weight_name)
    phase, seed, encode = params[f"train_{name}"], params["seed"], ENCODE[name]
    pad, hand = processor.tokenizer.pad_token_id, DistortedHandwriting(params["seed"])
    held_out = [encode(row, processor) for row in held_out_rows(phase["held_out_rows"], seed)]

    def add_gradient(step: int, share: Share) -> float:
        rows = draw_rows(name, step, phase["batch"], seed, hand, tuple(SOURCES))
        encoded = [encode(row, processor) for row in rows]
        return backward(model, encoded, share, pad, phase["micro_batches"])

    def score() -> str:
        return f"held-out rows right {teacher_forced(model, held_out, pad):.1f}%"

    fit(model, add_gradient, score, phase, files.checkpoint, name)
    if share.rank == 0:
        save_weights(model, files.out)


@click.command()
@click.argument("name", type=click.Choice(list(WEIGHTS)))
@click.option("--params", "params_path", default="params.yaml", show_default=True)
@click.option("--decoder", default="../smollm2/model", show_default=True, help="Its checkpoint.")
@click.option("--folder", default=".", show_default=True, help="Folder of the trained weights.")
@click.option("--scratch", default=".training", show_default=True, help="To resume from.")
@click.option(
    "--processes", default=2, show_default=True, help="Training processes, one core each."
)
def main(
    name: str, params_path: str, decoder: str, folder: str, scratch: str, processes: int
) -> None:
    """Train the adapters, or all together, and write the weights."""
    torch.set_num_threads(1)  # forked processes cannot use a pool of threads that exists already
    transformers_logging.set_verbosity_error()
    check_decoder(Path(decoder))
    params = read_yaml(Path(params_path))
    tower, lora = Path(folder) / "tower.safetensors", Path(folder) / WEIGHTS["lora"]
    before = [lora, tower] if name == "joint" else []
    for path in before:
        check_weights(path)
    sections = ("seed", "tower", "adapters", f"train_{name}")
    key = run_key([params[section] for section in sections], Path(decoder) / "config.json", *before)
    at, out = Path(scratch) / f"{name}-{key}", Path(folder) / WEIGHTS[name]
    files = Files(Path(decoder), before, at, out)
    in_parallel(lambda share: train(share, name, params, files), processes)
    shutil.rmtree(at)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        say(f"error: {error}", error=True)
        raise SystemExit(2) from None
