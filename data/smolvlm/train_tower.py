"""Train the tower and the connector towards the embeddings of captions, without the decoder.

    python train_tower.py --decoder ../smollm2/model

Writes tower.safetensors. Float32 on two processes of one core each; drawings are drawn anew for
each step. An interrupted run resumes from its last checkpoint in .training/.
"""

import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch
from adapters import save_weights, sees
from assemble import build_model, build_processor, check_decoder
from captions import VOCABULARY, caption, token_of
from drawing import Drawing, Handwriting
from drawn_batches import DistortedHandwriting, draw_rows, held_out_rows
from fitting import Settings, Share, fit, in_parallel, run_key
from PIL import Image
from questions import SOURCES
from transformers.utils import logging as transformers_logging

from interlace.errors import InputError
from interlace.printable import say
from interlace.system.documents import read_yaml

SHARPNESS = 2.0, 8.0  # nats per squared distance at the beginning and at the end
PIECE = 16  # images that are drawn by one generator
DRAWN = [source for source in SOURCES if not source.startswith("text_")]


def pixels(drawings: Sequence[Drawing], processor: Any) -> torch.Tensor:
    """Return the drawings as the processor gives them to the tower, [B, 3, side, side]."""
    images = [[Image.open(io.BytesIO(drawing.png)).convert("RGB")] for drawing in drawings]
    return processor.image_processor(images=images, return_tensors="pt")["pixel_values"][:, 0]


def visual_tokens(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Return what the tower and the connector make of images [B, 3, side, side]: [B, words, d]."""
    states = model.model.vision_model(images).last_hidden_state  # [B, patches, d_v]
    return model.model.connector(states)


def word_embeddings(model: Any, tokenizer: Any) -> torch.Tensor:
    """Return the decoder's input embeddings of the words of captions, [V, d]."""
    tokens = [token_of(word, tokenizer) for word in VOCABULARY]
    return model.get_input_embeddings().weight[tokens].detach()


def word_numbers(drawings: Sequence[Drawing]) -> torch.Tensor:
    """Return the captions as numbers in the vocabulary, [B, words]."""
    return torch.tensor([[VOCABULARY.index(word) for word in caption(one)] for one in drawings])


def squared_distances(outputs: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Squared distance of each visual token [B, W, d] from each word's embedding [V, d]."""
    products = outputs @ words.T  # [B, W, V]
    return outputs.square().sum(-1, keepdim=True) - 2 * products + words.square().sum(-1)


def caption_loss(
    outputs: torch.Tensor, targets: torch.Tensor, words: torch.Tensor, sharpness: float
) -> torch.Tensor:
    """Cross-entropy of the nearest word, and the distance from the right one; mean per token.

    The first tells words apart from the beginning, where distances alone lead to their mean. The
    second moves a visual token onto its word, and so does a growing sharpness: digits, the nearest
    words, are 1.0 to 1.6 apart.

    Args:
        outputs: visual tokens, [B, W, d].
        targets: numbers of their words, [B, W].
        words: embeddings of the vocabulary, [V, d].
        sharpness: nats per squared distance.
    """
    distances = squared_distances(outputs, words)  # [B, W, V]
    logits = -sharpness * distances.flatten(0, 1)
    entropy = torch.nn.functional.cross_entropy(logits, targets.flatten())
    right = distances.gather(-1, targets[..., None]).mean()
    return entropy + right / words.square().sum(-1).mean()


@torch.inference_mode()
def captions_right(
    model: Any, images: torch.Tensor, targets: torch.Tensor, words: torch.Tensor
) -> tuple[float, float]:
    """Percent of caption words whose embedding is the nearest one, and of whole captions."""
    nearest = squared_distances(visual_tokens(model, images), words).argmin(-1)
    hits = nearest == targets  # [B, W]
    return 100 * hits.float().mean().item(), 100 * hits.all(-1).float().mean().item()


def drawings_of_step(
    step: int, share: Share, batch: int, seed: int, hand: Handwriting
) -> list[Drawing]:
    """Draw a process's share of the images of a step: some of its pieces, `PIECE` images each."""
    pieces = batch // PIECE
    drawn: list[Drawing] = []
    for number in range(step * pieces, (step + 1) * pieces)[share.rank :: share.of]:
        rows = draw_rows("tower", number, PIECE, seed, hand, DRAWN)
        drawn += [drawing for row in rows for drawing in row.drawings][:PIECE]
    return drawn


def train(share: Share, params: Settings, decoder: Path, at: Path, out: Path) -> None:
    """Train in one of the processes; the first one writes the weights."""
    processor = build_processor(decoder)
    model = build_model(decoder, params["tower"], processor, params["seed"])
    words = word_embeddings(model, processor.tokenizer)
    for name, weight in model.named_parameters():
        weight.requires_grad = sees(name)
    phase, seed, hand = params["train_tower"], params["seed"], DistortedHandwriting(params["seed"])
    rows = held_out_rows(phase["held_out_rows"], seed)
    held_out = [drawing for row in rows for drawing in row.drawings]
    held_out_pixels, held_out_words = pixels(held_out, processor), word_numbers(held_out)

    def add_gradient(step: int, share: Share) -> float:
        mine = drawings_of_step(step, share, phase["batch"], seed, hand)
        outputs = visual_tokens(model, pixels(mine, processor))
        sharpness = SHARPNESS[0] + (SHARPNESS[1] - SHARPNESS[0]) * step / phase["steps"]
        loss = caption_loss(outputs, word_numbers(mine), words, sharpness)
        loss = loss * len(mine) / phase["batch"]
        loss.backward()
        return loss.item()

    def score() -> str:
        right = captions_right(model, held_out_pixels, held_out_words, words)
        return f"held-out words right {right[0]:.2f}%, captions {right[1]:.1f}%"

    fit(model, add_gradient, score, phase, at, "tower")
    if share.rank == 0:
        save_weights(model, out)


@click.command()
@click.option("--params", "params_path", default="params.yaml", show_default=True)
@click.option("--decoder", default="../smollm2/model", show_default=True, help="Its checkpoint.")
@click.option("--out", default="tower.safetensors", show_default=True, help="The trained weights.")
@click.option("--scratch", default=".training", show_default=True, help="To resume from.")
@click.option(
    "--processes", default=2, show_default=True, help="Training processes, one core each."
)
def main(params_path: str, decoder: str, out: str, scratch: str, processes: int) -> None:
    """Train and write the tower."""
    torch.set_num_threads(1)  # forked processes cannot use a pool of threads that exists already
    transformers_logging.set_verbosity_error()
    check_decoder(Path(decoder))
    params = read_yaml(Path(params_path))
    settings = [params[name] for name in ("seed", "tower", "train_tower")]
    at = Path(scratch) / f"tower-{run_key(settings, Path(decoder) / 'config.json')}"
    in_parallel(lambda share: train(share, params, Path(decoder), at, Path(out)), processes)
    shutil.rmtree(at)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        say(f"error: {error}", error=True)
        raise SystemExit(2) from None
