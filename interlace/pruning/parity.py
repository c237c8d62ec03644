"""The gate behind `export`: what was written is the dense model without some layers, to the bit.

Both run on the same samples, in the same number type, on the same device, one after the other: the
dense one with its dropped layers bypassed in memory and new weights put in, the written one as
transformers loads it. States are [1, T, d]: one sample of T tokens, d the decoder's width.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from tqdm import tqdm

from interlace.errors import ContractError, InputError
from interlace.model import chat
from interlace.model.batches import encode_rows
from interlace.model.bypass import bypass
from interlace.model.decoder import decoder_layers, decoder_prefix
from interlace.model.states import forward, recorded
from interlace.params.exporting import Export
from interlace.plan.record import Plan
from interlace.pruning.dense import Dense
from interlace.samples.rows import iterate

LAST_TOKENS = 16  # of a sample, whose logits are compared: all of them take T x vocabulary
LOOKED_AT = 256  # calibration rows that the shortest and the longest prompt are found among


@dataclass(frozen=True)
class Prompt:
    """A sample to run both models on.

    Attributes:
        sample_id: of the calibration row.
        inputs: a batch of one.
    """

    sample_id: str
    inputs: chat.Inputs

    @property
    def tokens(self) -> int:
        """T."""
        return int(self.inputs["input_ids"].shape[1])


def check_parity(
    written: Path,
    dense: Dense,
    plan: Plan,
    params: Export,
    replaced: Mapping[str, Path] = {},
) -> dict[str, Any]:
    """Compare a written checkpoint with the dense model without the dropped layers.

    The output of every kept layer and the logits of the last tokens must be the same bits.

    Args:
        written: the folder that `export` wrote.
        dense: the checkpoint that it was made from, the calibration rows, and how to read these.
        plan: which layers are gone.
        params: the type that weights were stored as, and how many rows to compare on: the shortest
            and the longest prompt are among them.
        replaced: new values that `export` put in, as it was given them.

    Returns:
        `samples`, `left_out` (rows that cannot be read), `tokens` (of all samples), `layers`
        (kept), `dtype` (both ran in) and `greatest_difference`, which is 0; `samples` alone where
        there are none.

    Raises:
        InputError: there are no calibration rows that can be read.
        ContractError: the two differ; says from which layer on, by how much and on which sample.
    """
    if not params.parity_samples:
        return {"samples": 0}
    pruned = dense.checkpoint.at(written)
    processor = pruned.open_processor(max_pixels=dense.answers.max_pixels)
    prompts, left_out = drawn_prompts(
        processor, dense.calibration, params.parity_samples, dense.answers.max_length
    )
    dtype = "auto" if params.dtype == "keep" else params.dtype
    _free()  # what made new weights may have held the dense model
    model = dense.checkpoint.open_model(dtype=dtype)
    if replaced:
        put_in(model, replaced, dense.checkpoint.layers.prefix)
    if params.dtype != "keep":
        round_weights(model, getattr(torch, params.dtype))
    bypass(model, plan.drop)
    expected = list(run_states(model, prompts, "dense model"))
    del model  # one at a time
    _free()
    model = pruned.open_model(dtype=dtype)
    _refuse_parting(plan, prompts, expected, run_states(model, prompts, "written model"))
    return {
        "samples": len(prompts),
        "left_out": left_out,
        "tokens": sum(prompt.tokens for prompt in prompts),
        "layers": len(plan.keep),
        "dtype": str(model.dtype).removeprefix("torch."),
        "greatest_difference": 0.0,
    }


def _free() -> None:
    """Give back the memory of models that nobody holds."""
    gc.collect()
    torch.cuda.empty_cache()


def drawn_prompts(
    processor: Any, calibration: Path, samples: int, max_length: int
) -> tuple[list[Prompt], int]:
    """Prompts of evenly spread lengths, the shortest and the longest among them.

    Args:
        processor: the model's processor.
        calibration: folder of rows that `sample` wrote; its first `LOOKED_AT` are looked at.
        samples: how many to draw.
        max_length: longest prompt, tokens; every layer's states of it must fit in memory.

    Returns:
        The prompts, and how many rows were left out because they are longer or cannot be read.

    Raises:
        InputError: there are no rows, or none that can be read.
    """
    way = "or set export.parity_samples to 0"
    rows = list(islice(iterate(calibration), LOOKED_AT))
    if not rows:
        raise InputError(
            f"{calibration}: no rows to check the export on; run `dvc repro sample`, {way}"
        )
    lengths: dict[int, int] = {}
    reasons: dict[int, str] = {}
    for i, row in enumerate(rows):  # one at a time: images take more memory than rows
        examples, left_out = encode_rows(processor, {i: row}, max_length)
        lengths |= {n: len(example["input_ids"]) for n, example in examples.items()}
        reasons |= left_out
    if not lengths:
        first = next(iter(reasons.values()))
        raise InputError(
            f"{calibration}: none of {len(rows)} rows to check the export on can be read: {first};"
            f" repair the data or raise measure.max_length, {way}"
        )
    order = sorted(lengths, key=lambda i: (-lengths[i], i))
    step = (len(order) - 1) / max(1, samples - 1)
    chosen = {order[round(place * step)] for place in range(samples)}
    prompts = []
    for i in sorted(chosen):
        batch = chat.collate([chat.encode_prompt(processor, rows[i])], pad_token_id=0)
        del batch["labels"]
        prompts.append(Prompt(rows[i]["sample_id"], batch))
    return prompts, len(reasons)


def put_in(model: nn.Module, replaced: Mapping[str, Path], stored_prefix: str) -> None:
    """Put new values of weights into a model.

    Args:
        model: with all of its layers.
        replaced: safetensors files by the stored name of the tensor in each.
        stored_prefix: what the decoder's layers are called in the checkpoint.

    Raises:
        ContractError: the model has no such parameter.
    """
    for name, path in replaced.items():
        own = name
        if name.startswith(f"{stored_prefix}."):
            own = decoder_prefix(model) + name.removeprefix(stored_prefix)
        try:
            parameter = model.get_parameter(own)
        except AttributeError:
            raise ContractError(
                f"{name} is replaced, and the opened model has no parameter {own} to check it by"
            ) from None
        with safe_open(path, framework="pt") as file, torch.no_grad():
            parameter.copy_(file.get_tensor(name))


def round_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Round the weights that a model keeps in a wider type than a checkpoint stores them in."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.to(dtype))


def run_states(model: Any, prompts: Sequence[Prompt], what: str) -> Iterator[list[Tensor]]:
    """Of each prompt: every layer's output [1, T, d], then the last tokens' logits [1, t, V]."""
    device = next(model.parameters()).device
    for prompt in tqdm(prompts, desc=f"parity: {what}", unit="sample"):
        inputs = {
            name: value.to(device, model.dtype if value.is_floating_point() else None)
            for name, value in prompt.inputs.items()
        }
        layers = range(len(decoder_layers(model)))
        with torch.inference_mode(), recorded(model, outputs=layers) as recording:
            last = forward(model, inputs).last_hidden_state[:, -LAST_TOKENS:]
            logits = model.get_output_embeddings()(last)
            yield [state.cpu() for state in (*recording.outputs.values(), logits)]


def parting(one: Sequence[Tensor], other: Sequence[Tensor]) -> Iterator[tuple[int, float]]:
    """The first place at which two lists of states are not the same bits, if there is one.

    Yields:
        Its position, and the greatest difference there; infinite where a number is not finite.

    Raises:
        ContractError: the lists are not as long.
    """
    if len(one) != len(other):
        raise ContractError(f"the written model has {len(other) - 1} layers, not {len(one) - 1}")
    for position, (a, b) in enumerate(zip(one, other, strict=True)):
        if not torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8)):
            difference = (a.double() - b.double()).abs().nan_to_num(nan=torch.inf)
            yield position, difference.max().item()
            return


def _refuse_parting(
    plan: Plan,
    prompts: Sequence[Prompt],
    expected: Iterable[list[Tensor]],
    found: Iterable[list[Tensor]],
) -> None:
    partings = [
        (position, -difference, prompt.sample_id)
        for prompt, one, other in zip(prompts, expected, found, strict=True)
        for position, difference in parting(one, other)
    ]
    if not partings:
        return
    position, negative, sample_id = min(partings)  # the first place, the greatest difference there
    places = [f"layer {p} (dense layer {layer})" for p, layer in enumerate(plan.keep)]
    gone = f" without layers {', '.join(map(str, plan.drop))}" if plan.drop else ""
    raise ContractError(
        f"the written checkpoint differs from the dense model{gone}: first at"
        f" {[*places, 'the logits'][position]}, by up to {-negative:.3g} on sample {sample_id};"
        " it was not put in place"
    )
