"""How gradients become updates of the tuned layers: in one process, in many, or over DeepSpeed.

An engine takes the sums that `AnswerLoss` gives, so that the update is that of the whole batch
however it is split. Weights in 16 bits have masters in float32: an update at 1e-5 would be lost in
their rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from interlace.params.healing import Recipe

MOMENTS = ("exp_avg", "exp_avg_sq")  # what AdamW keeps of each weight beside its step


class Engine(Protocol):
    """Trains the parameters of a module that require gradients.

    Attributes:
        module: takes inputs and labels, returns the sum of the losses of answer tokens.
    """

    module: nn.Module

    def loss(self, inputs: Any, labels: Tensor) -> Tensor:
        """The sum of the losses of a pass."""

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add a pass's gradient.

        Args:
            loss: its share of the update's mean loss.
            last: whether it is the last pass of the update.
        """

    def step(self, learning_rate: float) -> float:
        """Clip, update, forget the gradients; returns the norm of the gradient before."""

    def state(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Masters and moments of some parameters, whole, in float32. All processes must ask."""

    def restore(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Take over what `state` gave after some updates. All processes must do so."""


def whole_weights(parameter: nn.Parameter, written: bool = False) -> AbstractContextManager[Any]:
    """A block in which a parameter that ZeRO-3 has split is whole; if `written`, split anew."""
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(  # type: ignore[no-any-return]
        [parameter], modifier_rank=0 if written else None
    )


def gathered(values: Tensor) -> Tensor:
    """The values of all processes, [processes, ...]."""
    if not dist.is_initialized():
        return values[None]
    found = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(found, values)
    return torch.stack(found)


def tuned_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require gradients, by name."""
    return {n: p for n, p in module.named_parameters() if p.requires_grad}


def adamw(weights: Mapping[str, Tensor], params: Recipe) -> torch.optim.AdamW:
    """The published recipe's optimizer; as there, decay is for matrices only.

    Args:
        weights: to update, by name.
        params: the recipe.
    """
    matrices = [w for w in weights.values() if len(getattr(w, "ds_shape", w.shape)) > 1]
    chosen = {id(weight) for weight in matrices}
    others = [weight for weight in weights.values() if id(weight) not in chosen]
    groups = [
        {"params": matrices, "weight_decay": params.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=params.learning_rate)


class Plain:
    """No DeepSpeed: every process holds everything, gradients are summed."""

    def __init__(self, module: nn.Module, params: Recipe) -> None:
        self.module = module
        self.tuned = tuned_parameters(module)
        self.clip = params.max_grad_norm
        self.masters = {
            name: weight if weight.dtype == torch.float32 else weight.detach().float()
            for name, weight in self.tuned.items()
        }
        self.optimizer = adamw(self.masters, params)

    def loss(self, inputs: Any, labels: Tensor) -> Tensor:
        """See `Engine`."""
        loss: Tensor = self.module(inputs, labels)
        return loss

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """See `Engine`."""
        loss.backward()  # type: ignore[no-untyped-call]
        for name, weight in self.tuned.items():
            master = self.masters[name]
            if master is not weight and weight.grad is not None:  # accumulate in float32
                gradient = weight.grad.float()
                master.grad = gradient if master.grad is None else master.grad + gradient
                weight.grad = None
            if last and dist.is_initialized():
                if master.grad is None:
                    master.grad = torch.zeros_like(master)
                dist.all_reduce(master.grad)

    def step(self, learning_rate: float) -> float:
        """See `Engine`."""
        norm = nn.utils.clip_grad_norm_(self.masters.values(), self.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._round()
        return float(norm)

    def state(self, names: Iterable[str]) -> dict[str, Tensor]:
        """See `Engine`."""
        tensors = {}
        for name in names:
            master = self.masters[name]
            tensors[name] = master.detach().cpu()
            for moment in MOMENTS:
                tensors[f"{name}.{moment}"] = self.optimizer.state[master][moment].cpu()
        return tensors

    def restore(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """See `Engine`."""
        for name, master in self.masters.items():
            if name in tensors:
                with torch.no_grad():
                    master.copy_(tensors[name])
                moments = {m: tensors[f"{name}.{m}"].to(master.device) for m in MOMENTS}
                self.optimizer.state[master] = {"step": torch.tensor(float(step)), **moments}
        self._round()

    @torch.no_grad()
    def _round(self) -> None:
        for name, weight in self.tuned.items():
            if self.masters[name] is not weight:
                weight.copy_(self.masters[name])


class Zero:
    """DeepSpeed ZeRO: optimizer, gradients and (stage 3) weights split over the processes."""

    def __init__(self, module: nn.Module, params: Recipe, config: dict[str, Any]) -> None:
        import deepspeed

        self.tuned = tuned_parameters(module)
        self.engine, *_ = deepspeed.initialize(
            model=module, optimizer=adamw(self.tuned, params), config=config
        )
        self.module = module
        self.processes = dist.get_world_size()
        self._make_moments()

    def loss(self, inputs: Any, labels: Tensor) -> Tensor:
        """See `Engine`."""
        loss: Tensor = self.engine(inputs, labels)
        return loss

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """See `Engine`."""
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss * self.processes, scale_wrt_gas=False)  # it takes the mean

    def step(self, learning_rate: float) -> float:
        """See `Engine`."""
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def state(self, names: Iterable[str]) -> dict[str, Tensor]:
        """See `Engine`."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        tensors = {}
        for name in names:
            weight = self.tuned[name]
            tensors[name] = safe_get_full_fp32_param(weight).cpu()
            for moment in MOMENTS:
                tensors[f"{name}.{moment}"] = safe_get_full_optimizer_state(weight, moment).cpu()
        return tensors

    def restore(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """See `Engine`."""
        for flat in self._flat():
            self.engine.optimizer.optimizer.state[flat]["step"].fill_(step)
        for name, weight in self.tuned.items():
            if name not in tensors:
                continue
            found = {key: tensors[key].to(self.engine.device) for key in _keys(name)}
            with whole_weights(weight, written=True), torch.no_grad():
                weight.copy_(found[name])
            _set_master(weight, found[name])
            for moment in MOMENTS:
                _set_master(weight, found[f"{name}.{moment}"], moment)

    def _make_moments(self) -> None:
        """Make AdamW's state before its first step, so that all of it is there to set and get.

        DeepSpeed's stage 2 looks for all states when the first group has made its own.
        """
        zero = self.engine.optimizer
        for flat in self._flat():
            zero.optimizer.state[flat] = {
                "step": torch.zeros(()),
                **{moment: torch.zeros_like(flat) for moment in MOMENTS},
            }
        if self.engine.zero_optimization_stage() < 3:
            zero._lazy_init_hp_params_optimizer_state()

    def _flat(self) -> Sequence[Tensor]:
        """The masters of this process, as DeepSpeed lays them end to end."""
        three = self.engine.zero_optimization_stage() == 3
        name = "fp32_partitioned_groups_flat" if three else "single_partition_of_fp32_groups"
        flat: Sequence[Tensor] = getattr(self.engine.optimizer, name)
        return flat


def _set_master(weight: nn.Parameter, value: Tensor, moment: str | None = None) -> None:
    """Hand this process its part of a master in float32, or of one of its moments."""
    from deepspeed import utils

    if not hasattr(weight, "ds_id"):
        if moment:
            utils.safe_set_full_optimizer_state(weight, value, moment)
        else:
            utils.safe_set_full_fp32_param(weight, value)
        return
    size: int = weight.partition_numel()  # type: ignore[attr-defined]
    padded = nn.functional.pad(value.flatten(), (0, size * dist.get_world_size() - value.numel()))
    part = padded.narrow(0, size * dist.get_rank(), size)
    if moment:
        utils.safe_set_local_optimizer_state(weight, part, moment)
    else:
        utils.safe_set_local_fp32_param(weight, part)


def _keys(name: str) -> list[str]:
    return [name, *(f"{name}.{moment}" for moment in MOMENTS)]
