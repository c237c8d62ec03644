"""Time SLEB's removals with shared states against full forward passes.

    make bench-sleb

Three ways measure all candidates of each removal, on the same batches, one after another in one
process with one thread; the order changes with each removal. All three know which layers are gone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from tqdm import tqdm

from interlace.measurements.sensitivity import STATE_BYTES
from interlace.model.answer_loss import answer_loss
from interlace.model.batches import batches
from interlace.model.bypass import bypassed
from interlace.model.chat import IGNORED, Inputs, collate, encode_training
from interlace.model.decoder import decoder_layers, deepstack_layers, norm_and_head
from interlace.model.open import open_model, open_processor
from interlace.model.pruned_losses import SharedStates, losses_without
from interlace.model.states import state_before
from interlace.samples.rows import file_tables

HEAD = """# Speed of SLEB

`make bench-sleb` writes this page. SLEB removes layers one after another and measures the loss
without each remaining layer but the first and the last. Three ways do so on the same batches:

- "users' passes": `model(**batch, labels=labels)` without the layer, for each candidate;
- "full passes": the decoder without the layer, and the head on answer tokens alone;
- "shared": as the stage `sensitivity` does. The states of the layers that candidates share are
  computed once, and those that the next removal shares are kept, up to 1 GiB of them.

Shared states give the losses of full passes to the bit. The ratios are those of the medians over
removals; one process with one thread times all three in turn. CPU time does not count what other
processes take.
"""
Drops = Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class Case:
    """A model and batches with answers.

    Attributes:
        name: for the table.
        model: opened.
        batches: inputs and labels.
        removals: layers to remove.
    """

    name: str
    model: Any
    batches: Sequence[Inputs]
    removals: int

    @property
    def answers(self) -> float:
        """The share of the tokens that are answers."""
        labels = [batch["labels"] for batch in self.batches]
        return sum(int((t != IGNORED).sum()) for t in labels) / sum(t.numel() for t in labels)


@torch.inference_mode()
def user_losses(case: Case, batch: Inputs, drops: Drops, _: Any) -> list[float]:
    """Run the model as its users do; return sums over answer tokens."""
    losses = []
    for drop in drops:
        with bypassed(case.model, drop):
            mean = case.model(**batch, use_cache=False).loss.item()
        losses.append(mean * int((batch["labels"][:, 1:] != IGNORED).sum()))
    return losses


@torch.inference_mode()
def full_losses(case: Case, batch: Inputs, drops: Drops, _: Any) -> list[float]:
    """Run all layers for each candidate, and the head on answer tokens."""
    losses = []
    for drop in drops:
        with bypassed(case.model, drop):
            state = state_before(case.model, batch, norm_and_head(case.model)[0])
        losses.append(answer_loss(case.model, state, batch["labels"]))
    return losses


def shared_losses(case: Case, batch: Inputs, drops: Drops, states: SharedStates) -> list[float]:
    """Run the layers that candidates share once, with those of the removal before."""
    return losses_without(case.model, batch, drops, deepstack_layers(case.model), states)


WAYS: tuple[Callable[[Case, Inputs, Drops, SharedStates], list[float]], ...] = (
    user_losses,
    full_losses,
    shared_losses,
)


def timed(case: Case) -> str:
    """Remove layers by all three ways; return a row of the table.

    Raises:
        ValueError: the ways' losses differ: full and shared ones in any bit, users' by rounding.
    """
    n_layers = len(decoder_layers(case.model))
    removed: list[int] = []
    states = [SharedStates(STATE_BYTES // len(case.batches)) for _ in case.batches]
    seconds: dict[Any, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for way in WAYS:
        way(case, case.batches[0], [(1,)], SharedStates(0))  # warm-up
    for step in tqdm(range(case.removals), desc=case.name, unit="removal"):
        layers = [layer for layer in range(1, n_layers - 1) if layer not in removed]
        drops = [tuple(sorted([*removed, layer])) for layer in layers]
        sums = {}
        for way in (*WAYS[step % 3 :], *WAYS[: step % 3]):
            wall, cpu = time.perf_counter(), time.process_time()
            pairs = zip(case.batches, states, strict=True)
            by_batch = [way(case, batch, drops, shared) for batch, shared in pairs]
            seconds[way].append((time.perf_counter() - wall, time.process_time() - cpu))
            sums[way] = [sum(losses) for losses in zip(*by_batch, strict=True)]
        close = torch.allclose(*map(torch.tensor, (sums[user_losses], sums[full_losses])))
        if sums[full_losses] != sums[shared_losses] or not close:
            raise ValueError(f"{case.name}, removal {step}: losses differ")
        best = min(range(len(layers)), key=sums[shared_losses].__getitem__)
        removed.append(layers[best])
        for shared in states:
            shared.forget(removed[-1])
    wall, cpu = ({way: median(s[i] for s in seconds[way]) for way in WAYS} for i in (0, 1))
    ratios = [
        f"{times[way] / times[shared_losses]:.2f}"
        for way in (user_losses, full_losses)
        for times in (wall, cpu)
    ]
    median_seconds = " / ".join(f"{wall[way]:.1f}" for way in WAYS)
    columns = [case.name, f"{case.answers:.0%}", f"{case.removals}", median_seconds, *ratios]
    return f"| {' | '.join(columns)} |\n"


def random_case(answers: float, removals: int, rows: int) -> Case:
    """Build a decoder of SmolLM2-135M's shape at a sixth of its width; rows of random tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        num_hidden_layers=30,
        hidden_size=96,
        intermediate_size=256,
        num_attention_heads=3,
        num_key_value_heads=1,
        vocab_size=8192,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    ids = torch.randint(0, config.vocab_size, (rows, 256))
    labels = ids.clone()
    labels[:, : round(256 * (1 - answers))] = IGNORED
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    return Case("random, 30 x 96", model, [batch], removals)


def checkpoint_case(name: str, folder: Path, data: Path, removals: int, rows: int) -> Case:
    """Open a model on rows of its data."""
    model, processor = open_model(folder, dtype="float32"), open_processor(folder)
    read = (row for table in file_tables(data) for row in table.to_pylist())
    encoded = [encode_training(processor, row) for row in islice(read, rows)]
    pad = processor.tokenizer.pad_token_id or 0
    groups = batches([len(row["input_ids"]) for row in encoded], 2048)
    padded = [collate([encoded[i] for i in group], pad_token_id=pad) for group in groups]
    return Case(name, model, padded, removals)


@click.command()
@click.option("--removals", default=12, show_default=True, help="Of the decoders of 30 layers.")
@click.option("--rows", default=2, show_default=True, help="Rows of each case.")
def main(removals: int, rows: int) -> None:
    """Measure, print and write docs/bench-sleb.md."""
    torch.set_num_threads(1)
    cases = [lambda: random_case(0.0625, removals, rows), lambda: random_case(0.5, removals, rows)]
    demo, real = Path("data/demo"), Path("data/smollm2")
    cases.append(lambda: checkpoint_case("demo", demo / "model", demo / "train.parquet", 9, rows))
    if (real / "model").is_dir():
        cases.append(
            lambda: checkpoint_case(
                "SmolLM2-135M", real / "model", real / "train.parquet", min(removals, 3), 1
            )
        )
    table = (
        "| model | answers | removals | seconds a removal: users' / full / shared"
        " | users' / shared | CPU time | full / shared | CPU time |\n"
        "|---|---:|---:|---|---:|---:|---:|---:|\n"
    )
    table += "".join(timed(case()) for case in cases)
    machine = f"torch {torch.__version__}, {os.cpu_count()} cores, float32"
    text = f"{HEAD}\n{machine}.\n\n{table}"
    if not (real / "model").is_dir():
        text += "\nSmolLM2-135M was not there: `make real` builds it.\n"
    Path("docs/bench-sleb.md").write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
