"""A checkpoint with new values for some tensors: all others keep their bytes."""

from __future__ import annotations

import re
from pathlib import Path

import family_models
import pytest
import torch
from plans import PREFIX, digests
from safetensors.torch import load_file, save_file

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.replace import as_stored, with_tensors
from interlace.checkpoint.safetensors import tensor_files
from interlace.errors import ContractError, InputError
from interlace.model.open import open_model

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


OLD = {  # names in older files of llava, by today's
    r"^model\.language_model\.": "language_model.model.",
    r"^lm_head\.": "language_model.lm_head.",
    r"^model\.": "",
}


@pytest.mark.parametrize(
    ("family", "names"),
    [("llava", {}), ("llava", OLD), ("llama, tied", {r"^model\.": ""})],
    ids=["as saved", "older names", "of the base model"],
)
def test_weights_take_the_names_of_their_files(
    tmp_path: Path, family: str, names: dict[str, str]
) -> None:
    folder = family_models.save(family, tmp_path / "model")
    values = dict(open_model(folder, dtype="float32").named_parameters())
    file, stored = folder / "model.safetensors", {}
    for name, value in load_file(file).items():
        pattern = next((pattern for pattern in names if re.match(pattern, name)), "$")
        stored[re.sub(pattern, names.get(pattern, ""), name)] = value
    save_file(stored, file, metadata={"format": "pt"})
    checkpoint = Checkpoint(folder)
    tensors = as_stored(checkpoint, checkpoint.check_opens(), values)
    assert tensors.keys() == stored.keys()
    assert all(torch.equal(value, stored[name]) for name, value in tensors.items())


def test_a_weight_that_is_not_stored_as_the_model_has_it_is_refused(tmp_path: Path) -> None:
    checkpoint = Checkpoint(family_models.save("llama", tmp_path))
    model = checkpoint.check_opens()
    for values in ({"surprise": torch.zeros(1)}, {"model.norm.weight": torch.zeros(1)}):
        with pytest.raises(InputError, match=f"{next(iter(values))}: not stored as the model"):
            as_stored(checkpoint, model, values)


@pytest.mark.parametrize(
    ("name", "complaint"), [("surprise", "holds no tensor surprise"), (NAME, "shape .* differs")]
)
def test_tensors_that_do_not_fit_are_refused(
    pruned_dir: Path, tmp_path: Path, name: str, complaint: str
) -> None:
    with pytest.raises(ContractError, match=complaint):
        with_tensors(pruned_dir, {name: torch.zeros(1)}, tmp_path / "tuned")
    assert list(tmp_path.iterdir()) == []
