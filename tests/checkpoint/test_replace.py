"""A checkpoint with new values for some tensors: all others keep their bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from plans import PREFIX, digests
from safetensors.torch import load_file

from interlace.checkpoint.replace import with_tensors
from interlace.checkpoint.safetensors import tensor_files
from interlace.errors import ContractError

NAME = f"{PREFIX}.2.mlp.down_proj.weight"


def test_changed_tensors_take_the_stored_type_and_all_others_keep_their_bytes(
    pruned_dir: Path, tmp_path: Path
) -> None:
    file = tensor_files(pruned_dir)[NAME]
    before = load_file(file)
    value = torch.randn(before[NAME].shape, dtype=torch.float64)
    with_tensors(pruned_dir, {NAME: value}, tmp_path / "tuned")
    after = load_file(tmp_path / "tuned" / file.name)
    assert after.keys() == before.keys()
    for name, tensor in (before | {NAME: value.float()}).items():
        assert torch.equal(after[name], tensor) and after[name].dtype == tensor.dtype
    old, new = digests(pruned_dir), digests(tmp_path / "tuned")
    assert {name for name, _ in old.items() ^ new.items()} == {file.name}


@pytest.mark.parametrize(
    ("name", "complaint"), [("surprise", "holds no tensor surprise"), (NAME, "shape .* differs")]
)
def test_tensors_that_do_not_fit_are_refused(
    pruned_dir: Path, tmp_path: Path, name: str, complaint: str
) -> None:
    with pytest.raises(ContractError, match=complaint):
        with_tensors(pruned_dir, {name: torch.zeros(1)}, tmp_path / "tuned")
    assert list(tmp_path.iterdir()) == []
