"""The optimizer's settings reach the weights."""

from __future__ import annotations

import pytest
import torch

from interlace.params.healing import Finetune
from interlace.training.engines import Plain


def test_only_matrices_decay() -> None:
    module = torch.nn.Linear(2, 3)
    weight, bias = module.weight.detach().clone(), module.bias.detach().clone()
    engine = Plain(module, Finetune(weight_decay=0.5))
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    engine.step(0.1)
    torch.testing.assert_close(module.weight.detach(), 0.95 * weight)
    assert torch.equal(module.bias, bias)


def test_the_gradient_is_clipped_and_its_norm_before_that_returned() -> None:
    engine = Plain(torch.nn.Linear(2, 3), Finetune(max_grad_norm=0.5))
    for parameter in engine.module.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert engine.step(0.1) == pytest.approx(3)  # 9 gradients of 1
    state = engine.state(engine.tuned)
    moments = [state[f"{name}.exp_avg"] for name in engine.tuned]
    assert sum(float(tensor.square().sum()) for tensor in moments) == pytest.approx(0.05**2)
