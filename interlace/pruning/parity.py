"""The check of `export`: the written model is the dense one without some layers, bit for bit.

Both run on the same samples, in the same type, on the same device, one after the other: the dense
model with its dropped layers bypassed in memory and new weights put in, the written one as
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
from interlace.model.states import normed_state, recorded
from interlace.params.exporting import Export
from interlace.plan.record import Plan
from interlace.pruning.dense import Dense
from interlace.pruning.report import ParityReport
from interlace.samples.rows import iterate

LAST_TOKENS = 16  # of a sample, whose logits are compared: those of all take T x vocabulary
ALIGNMENT = 64  # bytes: what torch gives new tensors
LARGEST_ALIGNED = 2**20  # bytes
LOOKED_AT = 256  # calibration rows among which prompts are drawn


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
) -> ParityReport:
    """Compare a written checkpoint with the dense model without the dropped layers.

    The output of every kept layer and the logits of the last tokens must be the same bits.

    Args:
        written: the folder that `export` wrote.
        dense: the checkpoint that it was made from, the calibration rows, and how to read these.
        plan: names the dropped layers.
        params: the type of the written weights, and the count of rows to compare on: the shortest
            and the longest prompt are among them.
        replaced: new values that `export` put in.

    Raises:
        InputError: there are no calibration rows that can be read.
        ContractError: the two differ; names the first layer, the difference and the sample.
    """
    if not params.parity_samples:
        return ParityReport(samples=0)
    pruned = dense.checkpoint.at(written)
    processor = pruned.open_processor(max_pixels=dense.answers.max_pixels)
    prompts, left_out = drawn_prompts(
        processor, dense.calibration, params.parity_samples, dense.answers.max_length
    )
    dtype = "auto" if params.dtype == "keep" else params.dtype
    _free()  # making new weights may have held the dense model
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
    _refuse_difference(plan, prompts, expected, run_states(model, prompts, "written model"))
    return ParityReport(
        samples=len(prompts),
        left_out=left_out,
        tokens=sum(prompt.tokens for prompt in prompts),
        layers=len(plan.keep),
        dtype=str(model.dtype).removeprefix("torch."),
        greatest_difference=0.0,
    )


def _free() -> None:
    """Give back the memory of models that are no longer referenced."""
    gc.collect()
    torch.cuda.empty_cache()


def drawn_prompts(
    processor: Any, calibration: Path, samples: int, max_length: int
) -> tuple[list[Prompt], int]:
    """Prompts of evenly spread lengths, the shortest and the longest among them.

    Args:
        processor: the model's processor.
        calibration: folder of rows that `sample` wrote; the first `LOOKED_AT` are candidates.
        samples: count of prompts.
        max_length: longest prompt, tokens; every layer's states of it must fit in memory.

    Returns:
        The prompts, and the count of rows that are too long or cannot be read.

    Raises:
        InputError: there are no rows, or none that can be read.
    """
    alternative = "or set export.parity_samples to 0"
    rows = list(islice(iterate(calibration), LOOKED_AT))
    if not rows:
        raise InputError(
            f"{calibration}: no rows to check the export on; draw rows again, {alternative}"
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
            f" repair the data or raise measure.max_length, {alternative}"
        )
    order = sorted(lengths, key=lambda i: (-lengths[i], i))
    step = (len(order) - 1) / max(1, samples - 1)
    spread = {order[round(n * step)] for n in range(samples)}
    prompts = []
    for i in sorted(spread):
        batch = chat.collate([chat.encode_prompt(processor, rows[i])], pad_token_id=0)
        del batch["labels"]
        prompts.append(Prompt(rows[i]["sample_id"], batch))
    return prompts, len(reasons)


def put_in(model: nn.Module, replaced: Mapping[str, Path], stored_prefix: str) -> None:
    """Put new values of weights into a model.

    Args:
        model: with all of its layers.
        replaced: safetensors files by the stored name of the tensor in each.
        stored_prefix: of the decoder's layers in the checkpoint.

    Raises:
        ContractError: the model has no such parameter.
    """
    for name, path in replaced.items():
        model_name = name
        if name.startswith(f"{stored_prefix}."):
            model_name = decoder_prefix(model) + name.removeprefix(stored_prefix)
        try:
            parameter = model.get_parameter(model_name)
        except AttributeError:
            raise ContractError(
                f"{name} is replaced, and the opened model has no parameter {model_name} to"
                " check it by"
            ) from None
        with safe_open(path, framework="pt") as file, torch.no_grad():
            parameter.copy_(file.get_tensor(name))


def round_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Round the weights that a model keeps in a wider type than a checkpoint stores them in."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.to(dtype))


def align(model: Any) -> Any:
    """Copy small weights that lie at odd addresses, as those in files may; return the model.

    Some kernels round otherwise by the address. Where a tensor lies in a file depends on those
    before it, so that a pruned model would differ from the dense one by rounding alone. Products
    of large matrices copy their operands first.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        odd = tensor.device.type == "cpu" and tensor.data_ptr() % ALIGNMENT
        if odd and tensor.nbytes <= LARGEST_ALIGNED:
            tensor.data = tensor.data.clone()
    return model


def run_states(model: Any, prompts: Sequence[Prompt], model_name: str) -> Iterator[list[Tensor]]:
    """Yield each prompt's layer outputs [1, T, d], then the last tokens' logits [1, t, V]."""
    device = next(model.parameters()).device
    align(model)
    for prompt in tqdm(prompts, desc=f"parity: {model_name}", unit="sample"):
        inputs = {
            name: value.to(device, model.dtype if value.is_floating_point() else None)
            for name, value in prompt.inputs.items()
        }
        layers = range(len(decoder_layers(model)))
        with torch.inference_mode(), recorded(model, outputs=layers) as recording:
            last = normed_state(model, inputs)[:, -LAST_TOKENS:]
            logits = model.get_output_embeddings()(last)
            yield [state.cpu() for state in (*recording.outputs.values(), logits)]


def first_difference(
    dense: Sequence[Tensor], written: Sequence[Tensor]
) -> tuple[int, float] | None:
    """Find the first states of two lists that are not the same bits.

    Returns:
        Their position, and the greatest difference there; infinite where a number is not finite.

    Raises:
        ContractError: the lists differ in length.
    """
    if len(dense) != len(written):
        raise ContractError(
            f"the written model has {len(written) - 1} layers, not {len(dense) - 1}"
        )
    for position, (a, b) in enumerate(zip(dense, written, strict=True)):
        if not torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8)):
            difference = (a.double() - b.double()).abs().nan_to_num(nan=torch.inf)
            return position, difference.max().item()
    return None


def _refuse_difference(
    plan: Plan,
    prompts: Sequence[Prompt],
    dense: Iterable[list[Tensor]],
    written: Iterable[list[Tensor]],
) -> None:
    differences = []
    for prompt, dense_states, written_states in zip(prompts, dense, written, strict=True):
        if (difference := first_difference(dense_states, written_states)) is not None:
            differences.append((difference[0], -difference[1], prompt.sample_id))
    if not differences:
        return
    position, negative, sample_id = min(differences)  # the earliest layer, then the greatest
    layers = [f"layer {p} (dense layer {layer})" for p, layer in enumerate(plan.keep)]
    without = f" without layers {', '.join(map(str, plan.drop))}" if plan.drop else ""
    raise ContractError(
        f"the written checkpoint differs from the dense model{without}: first at"
        f" {[*layers, 'the logits'][position]}, by up to {-negative:.3g} on sample {sample_id};"
        " it was not put in place"
    )
