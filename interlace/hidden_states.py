"""One pass over the calibration set and the probes: how every span of layers changes the states.

Shapes: B samples, T padded tokens, d the decoder's width, L its layers. The true input `x_i` and
output `y_i` of layer i are [B, T, d]. Only per-sample statistics leave the pass; token-level states
are never stored.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from tqdm import tqdm

import interlace
from interlace import chat, samples
from interlace.errors import ContractError, InputError
from interlace.families import decoder_layers, vision_token_ids
from interlace.outputs import remove, whole
from interlace.params import Collect
from interlace.sources import identity

_ABOUT = [("sample_id", pa.string()), ("domain", pa.string()), ("task", pa.string())]
SIMILARITY = pa.schema(
    [
        *_ABOUT,
        ("source", pa.string()),
        ("n_tokens", pa.int32()),
        ("n_vision_tokens", pa.int32()),
        ("first", pa.int32()),
        ("span", pa.int32()),
        ("cosine", pa.float32()),
        ("cosine_vision", pa.float32()),
        ("cosine_text", pa.float32()),
        ("cosine_last", pa.float32()),
    ]
)
_KINDS = ("cosine", "cosine_vision", "cosine_text", "cosine_last")  # which tokens count
WINDOW = 256  # samples per part: what a killed run may lose, and what is sorted by length
_CHUNK = 2**25  # numbers normalised at once on either side, bounds memory


@contextmanager
def true_states(model: nn.Module) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Record the true input and output of every decoder layer while the block runs.

    In a model with DeepStack the output of layer i is not the input of layer i+1, since visual
    features are added between them; hooks see both as they are.

    Yields:
        Inputs and outputs, lists of L tensors [B, T, d], filled anew by each forward pass.
    """
    layers = decoder_layers(model)
    inputs: list[Tensor] = [torch.empty(0)] * len(layers)
    outputs: list[Tensor] = [torch.empty(0)] * len(layers)

    def before(i: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            inputs[i] = args[0] if args else kwargs["hidden_states"]

        return hook

    def after(i: int) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            outputs[i] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = []
    for i, layer in enumerate(layers):
        handles.append(layer.register_forward_pre_hook(before(i), with_kwargs=True))
        handles.append(layer.register_forward_hook(after(i)))
    try:
        yield inputs, outputs
    finally:
        for handle in handles:
            handle.remove()


def forward(model: nn.Module, batch: chat.Inputs) -> Any:
    """Run the decoder on a batch without the head: similarity needs no logits."""
    base: Any = model.base_model
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return base(**inputs, use_cache=False)


def residual_states(model: nn.Module, batch: chat.Inputs) -> tuple[list[Tensor], list[Tensor]]:
    """True inputs and outputs of all L layers, [B, T, d] each."""
    with true_states(model) as (inputs, outputs):
        forward(model, batch)
        return list(inputs), list(outputs)


def reference_states(model: nn.Module, batch: chat.Inputs) -> tuple[list[Tensor], list[Tensor]]:
    """What the published code takes for inputs and outputs: `output_hidden_states`.

    State i+1 stands for the output of layer i (DeepStack features not yet added) and for the input
    of layer i+1 alike. The last state lies behind the final norm and is left out, so the last layer
    has no score.
    """
    base: Any = model.base_model
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    states = base(**inputs, use_cache=False, output_hidden_states=True).hidden_states
    return list(states[:-2]), list(states[1:-1])


STATES = {"residual": residual_states, "reference": reference_states}


def span_cosines(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], max_span: int | None
) -> tuple[Any, Tensor]:
    """`cos(x_i[t], y_{i+p-1}[t])` of every span of p <= max_span layers.

    Every state is normalised once; the cosines of a token are one product of its inputs, [L, d],
    and its outputs, [d, L].

    Args:
        inputs: `x_0 .. x_{L-1}`, each [B, T, d].
        outputs: `y_0 .. y_{L-1}`, each [B, T, d].
        max_span: the longest span, layers; none: all.

    Returns:
        Spans [S, 2] (first layer, span), shorter ones first, and cosines [S, B, T], float32
        whatever the states' dtype.
    """
    n, (rows, tokens, width) = len(inputs), inputs[0].shape
    longest = min(max_span or n, n)
    spans = np.array([(i, p) for p in range(1, longest + 1) for i in range(n - p + 1)])
    first, last = torch.from_numpy(np.stack([spans[:, 0], spans.sum(1) - 1])).to(inputs[0].device)
    sides = [[state.flatten(0, 1) for state in states] for states in (inputs, outputs)]  # [B*T, d]
    chunk = max(1, _CHUNK // (n * width))
    found = []
    for begin in range(0, rows * tokens, chunk):
        x, y = (
            nn.functional.normalize(
                torch.stack([state[begin : begin + chunk] for state in side], 1).float(), dim=-1
            )
            for side in sides
        )  # [n, L, d]
        found.append((x @ y.mT)[:, first, last])  # [n, L, L] -> [n, S]
    return spans, torch.cat(found).T.reshape(-1, rows, tokens)


def masked_means(values: Tensor, masks: Tensor) -> Tensor:
    """Means over the tokens of each mask.

    Args:
        values: [S, B, T].
        masks: [M, B, T], 0 or 1.

    Returns:
        [S, B, M] float64; NaN where a mask holds no token.
    """
    sums = torch.einsum("sbt,mbt->sbm", values.double(), masks.double())
    return sums / masks.double().sum(-1).T  # [S, B, M] / [B, M]


def measure_batch(
    model: nn.Module, batch: chat.Inputs, mode: str, max_span: int | None
) -> dict[str, Any]:
    """All statistics of one batch.

    Returns:
        `spans` [S, 2] (first, span), `cosines` [S, B, 4] (all, vision, text tokens, last token),
        `n_tokens` and `n_vision_tokens` [B], and `pooled` [2, L, B, d] (mean-pooled inputs,
        outputs), as arrays.
    """
    attended = batch["attention_mask"].bool()  # [B, T]
    vision = torch.isin(
        batch["input_ids"],
        torch.tensor(vision_token_ids(model.config), device=attended.device),
    )
    masks = torch.stack([attended, attended & vision, attended & ~vision, last_tokens(attended)])
    with torch.inference_mode():
        inputs, outputs = STATES[mode](model, batch)
        spans, cosines = span_cosines(inputs, outputs, max_span)
        pooled = [
            torch.stack(
                [torch.einsum("btd,bt->bd", state.float(), attended.float()) for state in states]
            )
            / attended.float().sum(-1)[None, :, None]
            for states in (inputs, outputs)
        ]
        means = masked_means(cosines, masks)
    return {
        "spans": spans,
        "cosines": means.cpu().numpy(),
        "n_tokens": masks[0].sum(-1).cpu().numpy(),
        "n_vision_tokens": masks[1].sum(-1).cpu().numpy(),
        "pooled": torch.stack(pooled).cpu().numpy(),
    }


def last_tokens(attended: Tensor) -> Tensor:
    """A mask [B, T] of every row's last attended token, wherever the padding lies."""
    places = torch.arange(1, attended.shape[1] + 1, device=attended.device) * attended  # [B, T]
    return attended & (places == places.amax(-1, keepdim=True))


def batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Group rows of similar length so that no padded batch exceeds a number of tokens.

    A row longer than that is a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    groups: list[list[int]] = []
    for i in order:  # the first of a group is its longest
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= tokens:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def collect(
    model: nn.Module,
    processor: Any,
    folders: Sequence[Path],
    out: Path,
    *,
    params: Collect,
    scratch: Path,
    provenance: dict[str, str],
) -> None:
    """Measure every calibration sample and probe, and write `similarity/` and `pooled/`.

    A run that was interrupted goes on behind the last part it finished.

    Args:
        model: the dense model.
        processor: its processor.
        folders: of rows that `sample` wrote: the calibration set, the probes.
        out: folder to write; `pooled/` is left out when no sample's states are kept.
        params: mode, spans, batch size.
        scratch: folder for finished parts; must be another one whenever inputs or params change.
        provenance: what the files' metadata shall say about the model.

    Raises:
        InputError: there are no rows, or a prompt is too long.
        ContractError: a hidden state is not finite, or too large to be kept.
    """
    about = provenance | {
        "mode": params.mode,
        "dtype": str(model.dtype).removeprefix("torch."),
        "code_version": interlace.__version__,
    }
    files = [path for folder in folders for path in folder.glob("*.parquet")]
    count = sum(pq.ParquetFile(path).metadata.num_rows for path in files)
    if not count:
        places = ", ".join(map(str, folders))
        raise InputError(f"{places}: no rows to measure; run `dvc repro sample`")
    rows = chain.from_iterable(samples.iterate(folder) for folder in folders)
    with tqdm(total=count, unit="sample", desc="collect") as progress:
        for number, window in enumerate(samples.in_groups(rows, WINDOW)):
            part = scratch / f"part-{number:05d}"
            if not part.is_dir():
                with whole(part) as partial:
                    partial.mkdir(parents=True)
                    _write_part(model, processor, window, partial, params, about, progress)
            else:
                progress.update(len(window))
    with whole(out) as partial:
        for path in sorted(scratch.glob("part-*/*.parquet")):  # part-00000/similarity.parquet
            target = partial / path.stem / f"{path.parent.name}.parquet"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    remove(scratch)


def _write_part(
    model: nn.Module,
    processor: Any,
    window: list[dict[str, Any]],
    folder: Path,
    params: Collect,
    about: dict[str, str],
    progress: Any,
) -> None:
    examples = [_encoded(processor, row, params.max_length) for row in window]
    lengths = [example["input_ids"].shape[0] for example in examples]
    pad = processor.tokenizer.pad_token_id or 0
    device = next(model.parameters()).device
    similarity: dict[int, pa.Table] = {}
    pooled: dict[int, Any] = {}
    for group in batches(lengths, params.batch_tokens):
        batch = chat.collate([examples[i] for i in group], pad_token_id=pad)
        batch = {name: value.to(device) for name, value in batch.items()}
        measured = measure_batch(model, batch, params.mode, params.max_span)
        _check_finite(measured, [window[i]["sample_id"] for i in group], about["dtype"])
        for place, i in enumerate(group):
            similarity[i] = _similarity(window[i], measured, place)
            if keeps_pooled(window[i]["domain"], params.pooled):
                pooled[i] = _halved(measured["pooled"][:, :, place], window[i]["sample_id"])
        progress.update(len(group))
    order = range(len(window))
    table = pa.concat_tables([similarity[i] for i in order])
    pq.write_table(table.replace_schema_metadata(about), folder / "similarity.parquet")
    if pooled:
        table = _pooled([window[i] for i in sorted(pooled)], [pooled[i] for i in sorted(pooled)])
        pq.write_table(table.replace_schema_metadata(about), folder / "pooled.parquet")


def keeps_pooled(domain: str, asked: str) -> bool:
    """Whether a sample's mean-pooled states are kept, under `collect.pooled`."""
    return asked == "all" or (asked == "probes" and domain != "native")


def _halved(pooled: Any, sample_id: str) -> Any:
    """Mean-pooled states [2, L, d] as float16."""
    if np.abs(pooled).max() > np.finfo(np.float16).max:
        raise ContractError(
            f"sample {sample_id}: a mean-pooled state is too large for float16; set collect.pooled"
            " to none"
        )
    return pooled.astype(np.float16)


def _encoded(processor: Any, row: dict[str, Any], max_length: int) -> chat.Inputs:
    try:
        return chat.encode_prompt(processor, row, max_length=max_length)
    except InputError as error:
        raise InputError(f"sample {row['sample_id']} of {row['source']}: {error}") from None


def _check_finite(measured: dict[str, Any], ids: list[str], dtype: str) -> None:
    bad = np.argwhere(~np.isfinite(measured["cosines"][:, :, 0]))  # all tokens: never empty
    if len(bad):
        first, _ = measured["spans"][bad[0][0]]
        raise ContractError(
            f"sample {ids[bad[0][1]]}: a hidden state of layer {first} or the next is not finite in"
            f" {dtype}; set collect.dtype to float32 or bfloat16"
        )


def _similarity(row: dict[str, Any], measured: dict[str, Any], place: int) -> pa.Table:
    spans, cosines = measured["spans"], measured["cosines"][:, place].astype(np.float32)  # [S, 4]
    counts = {name: int(measured[name][place]) for name in ("n_tokens", "n_vision_tokens")}
    constant = {name: row[name] for name in ("sample_id", "domain", "task", "source")} | counts
    columns: dict[str, Any] = {
        name: pa.repeat(pa.scalar(value, SIMILARITY.field(name).type), len(spans))
        for name, value in constant.items()
    }
    columns |= {"first": spans[:, 0].astype(np.int32), "span": spans[:, 1].astype(np.int32)}
    for kind, name in enumerate(_KINDS):
        columns[name] = pa.array(cosines[:, kind], from_pandas=True)  # NaN: no such tokens
    return pa.table([columns[name] for name in SIMILARITY.names], schema=SIMILARITY)


def _pooled(rows: list[dict[str, Any]], pooled: list[Any]) -> pa.Table:
    layers, width = pooled[0].shape[1:]
    states = np.stack(pooled)  # [N, 2, L, d]
    columns: dict[str, Any] = {
        name: pa.array([row[name] for row in rows for _ in range(layers)], pa.string())
        for name, _ in _ABOUT
    }
    columns["layer"] = pa.array(list(range(layers)) * len(rows), pa.int32())
    for place, name in enumerate(("input", "output")):
        flat = pa.array(states[:, place].reshape(-1), pa.float16())  # [N * L * d]
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, width)
    return pa.table(columns)


def provenance_of(pinned: dict[str, Any]) -> dict[str, str]:
    """What measurements say about the model they were made on, from its pinned source."""
    return identity(pinned) | {
        "n_layers": str(pinned["n_layers"]),
        "deepstack_layers": str(pinned["deepstack_layers"]),
    }
