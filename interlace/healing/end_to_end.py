"""Updates of end-to-end training: the tuned layers learn from the loss on answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from interlace.model.chat import IGNORED
from interlace.model.decoder import decoder_layers
from interlace.params.healing import Recipe
from interlace.system import distributed
from interlace.training.checkpointing import GradientCheckpointing
from interlace.training.engines import Engine, all_gather, tuned_parameters
from interlace.training.loop import NotFiniteError
from interlace.training.rows import Pass


class EndToEnd:
    """See `training.loop.Learner`.

    An update's values are `loss`, the mean over its answer tokens in nats, with the terms of
    distillation where there are any, and `grad_norm`, the gradient's norm before clipping.
    """

    title = "finetune"
    objective = "loss"
    rate_parameter = "finetune.learning_rate"

    def __init__(self, model: nn.Module, engine: Engine, params: Recipe) -> None:
        """Take the model.

        Args:
            model: with only the tuned weights unfrozen.
            engine: updates them.
            params: the recipe.
        """
        self.engine = engine
        self.names_by_layer = names_by_layer(engine.module, model)
        self.checkpointing = GradientCheckpointing(model, params)

    def update(self, passes: Sequence[Pass], learning_rate: float) -> dict[str, float]:
        """See `training.loop.Learner`."""
        device = distributed.device()
        sizes = [[_answer_tokens(p.labels), p.labels.numel()] for p in passes]
        sizes_by_process = all_gather(torch.tensor(sizes, device=device))  # [processes, passes, 2]
        answers = max(1, int(sizes_by_process[..., 0].sum()))
        losses = []
        for number, one_pass in enumerate(passes):
            self.checkpointing.set_for(int(sizes_by_process[:, number, 1].max()))
            inputs = {k: v.to(device, non_blocking=True) for k, v in one_pass.inputs.items()}
            loss = self.engine.loss(inputs, one_pass.labels.to(device))
            self.engine.backward(loss / answers, last=number == len(passes) - 1)
            losses.append(loss.detach())
        sums = all_gather(torch.stack(losses))  # [processes, passes]
        if not_finite := [(int(p), int(n)) for p, n in (~sums.isfinite()).nonzero()]:
            raise NotFiniteError(not_finite, "the loss")
        norm = self.engine.step(learning_rate)
        if not math.isfinite(norm):
            all_passes = [(p, n) for p in range(len(sums)) for n in range(len(passes))]
            raise NotFiniteError(all_passes, "the gradient")
        return {"loss": float(sums.double().sum()) / answers, "grad_norm": norm}

    def states(self) -> Iterator[dict[str, Tensor]]:
        """See `training.loop.Learner`: a file per layer, and one for other weights."""
        return (self.engine.state(names) for names in self.names_by_layer)

    def restore(self, states: Iterable[Mapping[str, Tensor]], step: int) -> None:
        """See `training.loop.Learner`."""
        for tensors in states:
            self.engine.restore(tensors, step)


def _answer_tokens(labels: Tensor) -> int:
    """Return the number of tokens that are predicted, from labels [B, T]."""
    return int((labels[:, 1:] != IGNORED).sum())


def names_by_layer(module: nn.Module, model: nn.Module) -> list[list[str]]:
    """Return the names of a module's tuned parameters, for each decoder layer that has some.

    Those of projector, final norm and head are a list of their own at the end.

    Args:
        module: holds the model.
        model: with only the tuned weights unfrozen.
    """
    names = {id(parameter): name for name, parameter in tuned_parameters(module).items()}
    lists = []
    for layer in decoder_layers(model):
        lists.append([names.pop(id(p)) for p in layer.parameters() if id(p) in names])
    return [layer_names for layer_names in (*lists, list(names.values())) if layer_names]
