"""The states of rows in a dense and in a pruned model, advanced through the decoder together.

All batches stand before the same dense layer at a time, so a sum over all tokens is known before
any goes on, and no layer runs from the start again: a passage costs as much as a few forward
passes, however many layers are fitted. The states of both models are kept in the CPU's memory, 2
numbers per token and unit of width in the model's dtype.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from interlace.model.answer_loss import answer_loss
from interlace.model.bypass import bypassed
from interlace.model.decoder import decoder_layers, deepstack_layers
from interlace.model.states import Arguments, entering_features, forward, hooked, recorded
from interlace.samples.answered_rows import AnsweredRows, answer_tokens


@dataclass
class _Batch:
    """One batch: its states before a layer, and all that the layers need beside them.

    Attributes:
        dense: states in the dense model, [B, T, d].
        pruned: states in the pruned model, [B, T, d].
        valid: no padding, [B, T].
        labels: [B, T].
        arguments: of all dense layers, beside their input.
        dense_features: visual features by the count of dense layers before them, [B, T, d].
        pruned_features: the same in the pruned model.
    """

    dense: Tensor
    pruned: Tensor
    valid: Tensor
    labels: Tensor
    arguments: dict[int, Arguments]
    dense_features: dict[int, Tensor]
    pruned_features: dict[int, Tensor]


class Passage:
    """Rows on their way through the decoder, in the dense and in the pruned model.

    Attributes:
        kept: dense layers that the pruned model keeps.
        position: of the kept layer that the pruned model's states stand before.
    """

    def __init__(
        self, model: nn.Module, drop: Sequence[int], rows: AnsweredRows, begin: int
    ) -> None:
        """Run the rows up to the first layer that may differ in the pruned model.

        Args:
            model: the dense model.
            drop: dropped layers.
            rows: at least one.
            begin: that layer; a dropped one only where it is the decoder's first.
        """
        self.model = model
        self.kept = [layer for layer in range(len(decoder_layers(model))) if layer not in drop]
        self._dense_layer = self.position = begin
        self._entries = deepstack_layers(model)
        self._device = next(model.parameters()).device
        self._batches = [
            self._batch(rows, number, tuple(drop))
            for number in tqdm(range(len(rows.groups)), unit="batch", desc="states", leave=False)
        ]

    def _batch(self, rows: AnsweredRows, number: int, drop: tuple[int, ...]) -> _Batch:
        batch = rows.batch(number, self._device)
        every = range(len(decoder_layers(self.model)))
        with torch.inference_mode():
            with recorded(self.model, inputs=[self._dense_layer], arguments=every) as recording:
                forward(self.model, batch)
            dense_features = entering_features(self.model, batch, self._entries)
            with bypassed(self.model, drop):
                pruned_features = entering_features(self.model, batch, self._entries)
        state = recording.inputs[self._dense_layer].cpu()
        return _Batch(
            dense=state,
            pruned=state,
            valid=batch["attention_mask"].bool(),
            labels=batch["labels"],
            arguments=recording.arguments,
            dense_features=dense_features,
            pruned_features=pruned_features,
        )

    def advance_dense(self, layer: int) -> None:
        """Run the dense model on up to a layer; the count of layers: through the last one."""
        layers = decoder_layers(self.model)
        with torch.inference_mode():
            for number in range(self._dense_layer, layer):
                for batch in self._batches:
                    state = batch.dense.to(self._device)
                    state = batch.arguments[number].output(layers[number], state)
                    batch.dense = _with_features(state, batch.dense_features, number + 1).cpu()
        self._dense_layer = layer

    def advance_pruned(self) -> None:
        """Run the pruned model's next layer, with the weights that it has now."""
        with torch.inference_mode():
            for batch in self._batches:
                batch.pruned = self._next(batch, self.position, batch.pruned).cpu()
        self.position += 1

    def signals(self, linear: nn.Module) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Run the pruned model's next layer on all rows; its states stay where they are.

        Args:
            linear: a linear layer in it.

        Yields:
            Of all valid tokens of a batch: the inputs of `linear` [N, p], the states after the
            layer in the pruned model [N, d], and the present states in the dense model [N, d].
        """
        inputs: dict[None, Tensor] = {}

        def record(_: None, args: tuple[Any, ...], __: dict[str, Any]) -> None:
            inputs[None] = args[0]

        for batch in self._batches:
            with torch.inference_mode(), hooked({None: linear}, on_call=record):
                state = self._next(batch, self.position, batch.pruned)
            signal = inputs[None].reshape(*batch.valid.shape, -1)  # [B, T, p]
            target = batch.dense.to(state.device)
            yield signal[batch.valid], state[batch.valid], target[batch.valid]

    def loss(self) -> float:
        """Run the pruned model to its end; return its cross-entropy per answer token, nats.

        The states stay where they are.
        """
        total, tokens = 0.0, 0
        with torch.inference_mode():
            for batch in self._batches:
                state = batch.pruned
                for position in range(self.position, len(self.kept)):
                    state = self._next(batch, position, state)
                total += answer_loss(self.model, state, batch.labels)
                tokens += answer_tokens(batch.labels)
        return total / tokens

    def _next(self, batch: _Batch, position: int, state: Tensor) -> Tensor:
        """Return the states after a layer of the pruned model, by its position."""
        layer = self.kept[position]
        output = batch.arguments[layer].output(
            decoder_layers(self.model)[layer], state.to(self._device)
        )
        return _with_features(output, batch.pruned_features, position + 1)


def _with_features(state: Tensor, features: Mapping[int, Tensor], layers: int) -> Tensor:
    return state + features[layers] if layers in features else state
