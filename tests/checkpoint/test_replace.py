"""A checkpoint with new values for some tensors: all others keep their bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pruning.test_export import PREFIX, digests, pruned_dir
from safetensors.torch import load_file

from interlace.checkpoint.replace import with_tensors
from interlace.checkpoint.safetensors import tensor_files
from interlace.errors import ContractError

__all__ = ["pruned_dir"]

NAME = f"{PREFIX}.2.mlp.down_proj.weight"


def test_changed_tensors_are_stored_and_other_files_stay(pruned_dir: Path, tmp_path: Path) -> None:
    files = tensor_files(pruned_dir)
    value = torch.randn(load_file(files[NAME])[NAME].shape)
    with_tensors(pruned_dir, {NAME: value}, tmp_path / "tuned")
    assert torch.equal(load_file(tmp_path / "tuned" / files[NAME].name)[NAME], value)
    before, after = digests(pruned_dir), digests(tmp_path / "tuned")
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == [files[NAME].name]


def test_neighbours_of_a_changed_tensor_keep_their_values(pruned_dir: Path, tmp_path: Path) -> None:
    file = tensor_files(pruned_dir)[NAME]
    before = load_file(file)
    with_tensors(pruned_dir, {NAME: torch.zeros_like(before[NAME])}, tmp_path / "tuned")
    after = load_file(tmp_path / "tuned" / file.name)
    assert all(torch.equal(before[name], after[name]) for name in before if name != NAME)


def test_changed_tensors_take_the_stored_type(pruned_dir: Path, tmp_path: Path) -> None:
    file = tensor_files(pruned_dir)[NAME]
    value = torch.zeros(load_file(file)[NAME].shape, dtype=torch.float64)
    with_tensors(pruned_dir, {NAME: value}, tmp_path / "tuned")
    assert load_file(tmp_path / "tuned" / file.name)[NAME].dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "complaint"), [("surprise", "holds no tensor surprise"), (NAME, "shape .* differs")]
)
def test_tensors_that_do_not_fit_are_refused(
    pruned_dir: Path, tmp_path: Path, name: str, complaint: str
) -> None:
    with pytest.raises(ContractError, match=complaint):
        with_tensors(pruned_dir, {name: torch.zeros(1)}, tmp_path / "tuned")
    assert list(tmp_path.iterdir()) == []
