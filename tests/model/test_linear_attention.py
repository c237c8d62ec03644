"""Linear attention in packed rows, in torch and with stand-ins for its kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attention_packages
import family_models
import pytest
import torch

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.healing.finetune import freeze_all_but
from interlace.model import linear_attention
from interlace.model.answer_loss import AnswerLoss
from interlace.model.chat import Inputs, collate
from interlace.model.linear_attention import boundaries, check_kernels, separate_samples
from interlace.model.open import auto_model, open_model
from interlace.training.checkpointing import graph_layers, set_checkpointing
from interlace.training.packing import pack, sample_positions

FAMILIES = ("qwen3_5", "qwen3_5_moe", "qwen3_5_text")


def long_samples(name: str) -> list[Inputs]:
    """Samples with and without an image, some longer than the rule's chunks of 64 tokens."""
    picture, text = family_models.samples(name)
    return [_lengthened(picture, 70), text, _lengthened(text, 40), picture, _lengthened(text, 3)]


def _lengthened(example: Inputs, tokens: int) -> Inputs:
    generator = torch.Generator().manual_seed(tokens)
    more = torch.randint(3, 80, (tokens,), generator=generator)
    fills = {"input_ids": more, "labels": more, "attention_mask": torch.ones_like(more)}
    return {
        key: torch.cat([value, fills.get(key, torch.zeros_like(more))])
        if value.shape == example["input_ids"].shape
        else value
        for key, value in example.items()
    }


def loss(model: Any, batch: Inputs) -> torch.Tensor:
    inputs = dict(batch)
    total: torch.Tensor = AnswerLoss(model)(inputs, inputs.pop("labels"))
    return total


def opened(folder: Path) -> Any:
    return auto_model(folder).from_pretrained(folder, dtype=torch.float32).train()


@pytest.mark.parametrize("one_row", [False, True])
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_packed_rows_train_as_single_rows_do(
    name: str, checkpointed: bool, one_row: bool, tmp_path: Path
) -> None:
    folder = family_models.save(name, tmp_path / "model")
    samples, model = long_samples(name), opened(folder)
    freeze_all_but(model, [1, 2])
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    single = sum(loss(model, collate([sample], pad_token_id=2)) for sample in samples)
    expected = torch.autograd.grad(single, trained, allow_unused=True)
    set_checkpointing(graph_layers(separate_samples(model)), checkpointed)
    batch = pack(samples, sample_positions(Checkpoint(folder)), pad_token_id=2, one_row=one_row)
    packed = loss(model, batch)
    torch.testing.assert_close(packed, single, rtol=1e-5, atol=0)
    for ours, theirs in zip(
        torch.autograd.grad(packed, trained, allow_unused=True), expected, strict=True
    ):
        if theirs is not None:
            scale = float(theirs.abs().max())
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * scale)


def test_without_separation_samples_reach_into_each_other(tmp_path: Path) -> None:
    folder = family_models.save("qwen3_5", tmp_path / "model")
    samples, model = long_samples("qwen3_5"), opened(folder)
    batch = pack(samples, sample_positions(Checkpoint(folder)), pad_token_id=2, one_row=True)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("A_log"):
                weight.fill_(-4.0)  # the state decays slowly
        mixed, apart = loss(model, batch), loss(separate_samples(model), batch)
    assert abs(mixed / apart - 1) > 1e-3  # single rows agree to 1e-5


def test_padded_rows_are_computed_as_before(tmp_path: Path) -> None:
    folder = family_models.save("qwen3_5", tmp_path / "model")
    batch, model = collate(long_samples("qwen3_5"), pad_token_id=2), opened(folder)
    with torch.no_grad():
        before = loss(model, batch)
        assert torch.equal(loss(separate_samples(model), batch), before)


def test_a_boundary_is_where_positions_begin_anew() -> None:
    positions = torch.tensor([[0, 1, 2, 0, 1], [0, 0, 1, 2, 3]])
    assert boundaries(positions).tolist() == [0, 3, 5, 6, 10]
    assert boundaries(positions).dtype is torch.int32


KERNELS = ("fla-core 0.6.0", "causal-conv1d 1.7.0")
PROGRAM = """
import sys, torch
import attention_packages, importlib
from pathlib import Path
from test_linear_attention import *
torch.cuda.is_available = lambda: True
name, folder, one_row = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "True"
samples = long_samples(name)
batch = pack(samples, sample_positions(Checkpoint(folder)), pad_token_id=2, one_row=one_row)
rule = importlib.import_module("fla.ops.gated_delta_rule")
with torch.no_grad():
    model = opened(folder).eval()
    single = sum(loss(model, collate([sample], pad_token_id=2)) for sample in samples)
    rule.CALLS.clear()
    packed = loss(separate_samples(model), batch)
print(float(packed / single - 1), rule.CALLS[0])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "packages", "one_row", "in_kernel"),
    [
        ("qwen3_5", KERNELS, True, True),
        ("qwen3_5_moe", KERNELS, True, True),
        ("qwen3_5", KERNELS, False, False),
        ("qwen3_5", KERNELS[:1], True, False),
    ],
    ids=["both kernels", "both kernels, moe", "several rows", "no convolution"],
)
def test_kernels_get_the_boundaries_or_a_row_for_each_sample(
    name: str, packages: tuple[str, ...], one_row: bool, in_kernel: bool, tmp_path: Path
) -> None:
    """In a process of its own: transformers looks for kernels when a family is imported."""
    site = attention_packages.write(tmp_path / "packages", *packages)
    folder = family_models.save(name, tmp_path / "model")
    tests = Path(__file__).parents[1]
    paths = map(str, (site, tests.parent, tests, Path(__file__).parent))
    command = [sys.executable, "-c", PROGRAM, name, str(folder), str(one_row)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert output.returncode == 0, output.stderr[-2000:]
    difference, calls = output.stdout.splitlines()[-1].split(" ", 1)
    assert abs(float(difference)) < 1e-5
    lengths = [len(sample["input_ids"]) for sample in long_samples(name)]
    assert (calls != "None") is in_kernel
    if in_kernel:
        ends = torch.tensor([0, *sorted(lengths, reverse=True)]).cumsum(0)
        assert calls == str(ends.tolist())


def test_slow_linear_attention_on_a_gpu_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    model = open_model(family_models.save("qwen3_5", tmp_path / "model"), dtype="float32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    capfd.readouterr()
    check_kernels(model)
    line = capfd.readouterr().err
    assert "without flash-linear-attention is slow; pip install 'interlace-vlm[linear-att" in line
    assert line.count("\n") == 1
    monkeypatch.setattr(linear_attention, "_imports", lambda module: True)
    check_kernels(model)
    assert not capfd.readouterr().err


def test_other_families_are_not_warned_of(
    dense: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_kernels(dense)
    assert separate_samples(dense) is dense
    assert not capfd.readouterr().err


def test_kernels_of_linear_attention_without_a_gpu_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = family_models.save("qwen3_5", tmp_path / "model")
    monkeypatch.setattr(linear_attention, "_imports", lambda module: True)
    with pytest.raises(InputError, match="needs a GPU, and there is none; uninstall flash-linear"):
        open_model(folder, dtype="float32")
