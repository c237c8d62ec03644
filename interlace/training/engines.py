"""Engines turn gradients into updates of the tuned layers: plain PyTorch, or DeepSpeed ZeRO.

An engine takes sums of losses over answer tokens, so that an update is that of all its rows however
they are split into passes. 16-bit weights have float32 masters: an update at 1e-5 would be lost in
their rounding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from interlace.params.healing import Recipe

MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's state of a weight, besides its step


class Engine(Protocol):
    """Trains the parameters of a module that require gradients.

    Attributes:
        module: takes inputs and labels, returns the sum of the losses of answer tokens.
    """

    module: nn.Module

    def loss(self, inputs: Any, labels: Tensor) -> Tensor:
        """Return the summed loss of a pass."""

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add a pass's gradient.

        Args:
            loss: the pass's share of the update's mean loss.
            last: this is the last pass of the update.
        """

    def step(self, learning_rate: float) -> float:
        """Clip the gradient, update, and clear it; return its norm before clipping."""

    def state(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Return some parameters' float32 masters and moments; all processes must call it."""

    def restore(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Take over what `state` returned after `step` updates; all processes must call it."""


def gathered_weight(
    parameter: nn.Parameter, *, modified: bool = False
) -> AbstractContextManager[Any]:
    """Return a context in which a parameter that ZeRO-3 partitions is complete.

    Args:
        parameter: any parameter.
        modified: the block changes it; the first process's values are partitioned afterwards.
    """
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(  # type: ignore[no-any-return]
        [parameter], modifier_rank=0 if modified else None
    )


def all_gather(values: Tensor) -> Tensor:
    """Return the values of all processes, [processes, ...]."""
    if not dist.is_initialized():
        return values[None]
    values_by_process = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(values_by_process, values)
    return torch.stack(values_by_process)


def tuned_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that require gradients, by name."""
    return {n: p for n, p in module.named_parameters() if p.requires_grad}


def adamw(weights: Mapping[str, Tensor], params: Recipe) -> torch.optim.AdamW:
    """Return the published recipe's optimizer, which decays matrices only.

    Args:
        weights: to update, by name.
        params: the recipe.
    """
    matrices = [w for w in weights.values() if len(getattr(w, "ds_shape", w.shape)) > 1]
    matrix_ids = {id(weight) for weight in matrices}
    vectors = [weight for weight in weights.values() if id(weight) not in matrix_ids]
    groups = [
        {"params": matrices, "weight_decay": params.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=params.learning_rate)


def optimizer_tensors(
    weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Return weights as `name` and their optimizer state as `name.key`, on the CPU."""
    tensors = {}
    for name, weight in weights.items():
        tensors[name] = weight.detach().cpu().contiguous()
        for key, value in optimizer.state.get(weight, {}).items():
            tensors[f"{name}.{key}"] = value.cpu().contiguous()
    return tensors


@torch.no_grad()
def restore_optimizer(
    weights: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
) -> None:
    """Take over what `optimizer_tensors` returned; weights that it does not hold stay."""
    for name, weight in weights.items():
        if name not in tensors:
            continue
        weight.copy_(tensors[name])
        state = {key: tensors[f"{name}.{key}"] for key in MOMENTS if f"{name}.{key}" in tensors}
        if state:
            moments = {key: value.to(weight.device) for key, value in state.items()}
            optimizer.state[weight] = {"step": tensors[f"{name}.step"], **moments}


class Plain:
    """No DeepSpeed: every process holds all weights and moments, gradients are summed."""

    def __init__(self, module: nn.Module, params: Recipe) -> None:
        self.module = module
        self.tuned = tuned_parameters(module)
        self.max_grad_norm = params.max_grad_norm
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
        norm = nn.utils.clip_grad_norm_(self.masters.values(), self.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._copy_masters()
        return float(norm)

    def state(self, names: Iterable[str]) -> dict[str, Tensor]:
        """See `Engine`."""
        return optimizer_tensors({name: self.masters[name] for name in names}, self.optimizer)

    def restore(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """See `Engine`."""
        restore_optimizer(self.masters, self.optimizer, tensors)
        self._copy_masters()

    @torch.no_grad()
    def _copy_masters(self) -> None:
        for name, weight in self.tuned.items():
            if self.masters[name] is not weight:
                weight.copy_(self.masters[name])


class Zero:
    """DeepSpeed ZeRO: optimizer, gradients and (stage 3) weights partitioned over the processes."""

    def __init__(self, module: nn.Module, params: Recipe, config: dict[str, Any]) -> None:
        import deepspeed

        self.module = module
        self.tuned = tuned_parameters(module)
        self.optimizer = adamw(self.tuned, params)
        self.optimizer.state = _AdamWState()
        weights_by_group = [group["params"] for group in self.optimizer.param_groups]
        self.engine, *_ = deepspeed.initialize(
            model=module, optimizer=self.optimizer, config=config
        )
        self.processes = dist.get_world_size()
        if self.engine.zero_optimization_stage() < 3:
            self._link_moments(weights_by_group)

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
        for group in self.optimizer.param_groups:
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
        for name, weight in self.tuned.items():
            if name not in tensors:
                continue
            master = tensors[name].to(self.engine.device)
            with gathered_weight(weight, modified=True), torch.no_grad():
                weight.copy_(master)
            _set_master(weight, master)
            for moment in MOMENTS:
                _set_master(weight, tensors[f"{name}.{moment}"].to(self.engine.device), moment)
        for state in self.optimizer.state.values():
            state["step"].fill_(step)

    def _link_moments(self, weights_by_group: list[list[Tensor]]) -> None:
        """Tell stage 2 where each weight's moments are, which it learns in its first step only.

        `deepspeed.initialize` replaced the weights of each group by this process's flat partition.
        """
        from deepspeed.utils import lazy_init_hp_params_optimizer_state

        groups = self.optimizer.param_groups
        for weights, group in zip(weights_by_group, groups, strict=True):
            (partition,) = group["params"]
            lazy_init_hp_params_optimizer_state(weights, partition, self.optimizer.state)


class _AdamWState(defaultdict[Tensor, dict[str, Tensor]]):
    """AdamW's state, which exists before the first step, so that a resume point can be restored.

    Stage 2 also needs all groups' state after the first group's first step.
    """

    def __missing__(self, weight: Tensor) -> dict[str, Tensor]:
        moments = {moment: torch.zeros_like(weight) for moment in MOMENTS}
        self[weight] = {"step": torch.zeros(()), **moments}
        return self[weight]


def _set_master(weight: nn.Parameter, value: Tensor, moment: str | None = None) -> None:
    """Set this process's partition of a weight's float32 master, or of one of its moments.

    `safe_set_full_*` refuses a ZeRO-3 weight whose size the processes do not divide.
    """
    from deepspeed import utils

    if hasattr(weight, "ds_id"):
        size = utils.safe_get_local_fp32_param(weight).numel()
        padding = size * dist.get_world_size() - value.numel()
        value = nn.functional.pad(value.flatten(), (0, padding))
        value = value.narrow(0, size * dist.get_rank(), size)
        set_fp32, set_state = utils.safe_set_local_fp32_param, utils.safe_set_local_optimizer_state
    else:
        set_fp32, set_state = utils.safe_set_full_fp32_param, utils.safe_set_full_optimizer_state
    if moment:
        set_state(weight, value, moment)
    else:
        set_fp32(weight, value)
