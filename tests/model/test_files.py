"""The weights that are hashed, measured and exported are those that transformers opens."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from plans import PLAN
from safetensors.torch import load_file, save_file

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.model.files import CONFIG, INDEX, SINGLE, check_file, weight_files
from interlace.model.open import open_model
from interlace.pruning.export import export_checkpoint
from interlace.sources.pin import pin_model


@pytest.fixture
def copied(dense_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dense_dir, tmp_path / "dense"))


def split(folder: Path, *files: str) -> None:
    """Write the weights to several files, and an index of them."""
    tensors = load_file(folder / SINGLE)
    weight_map = {name: files[i % len(files)] for i, name in enumerate(sorted(tensors))}
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shard = {name: tensors[name] for name in tensors if weight_map[name] == file}
        save_file(shard, folder / file, metadata={"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def add_noise(folder: Path) -> None:
    """Let the single file differ from the shards beside it."""
    split(folder, "a.safetensors", "b.safetensors")
    tensors = {name: value + 1 for name, value in load_file(folder / SINGLE).items()}
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})


def move_to_subfolders(folder: Path) -> None:
    split(folder, "weights/a.safetensors", "more/weights/b.safetensors")
    (folder / SINGLE).unlink()


@pytest.mark.parametrize("change", [add_noise, move_to_subfolders])
def test_what_is_hashed_and_exported_is_what_transformers_opens(
    copied: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    change(copied)
    model = open_model(copied, dtype="float32")
    export_checkpoint(copied, PLAN, tmp_path / "pruned")
    pruned = open_model(tmp_path / "pruned", dtype="float32")
    for new, old in enumerate(PLAN.keep):
        weights = [m.get_decoder().layers[i] for m, i in ((model, old), (pruned, new))]
        first, second = (layer.mlp.down_proj.weight for layer in weights)
        assert torch.equal(first, second)
    assert Checkpoint(copied).parameters == model.num_parameters()
    files = pin_model(str(copied), None, hashes=tmp_path / "hashes").files
    assert files is not None
    assert {path.relative_to(copied).as_posix() for path in weight_files(copied)} <= files.keys()


def link_out(path: Path) -> None:
    target = path.parents[1] / f"elsewhere-{path.name}"
    path.rename(target)
    path.symlink_to(target)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_link(target: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return change


FAULTS = [
    (link_out, "leads out of the folder, to .*elsewhere"),
    (as_folder, "not a file, but a folder"),
    (as_pipe, "not a file, but a folder, a pipe"),
    (as_link("nowhere"), "links to a file that is not there"),
    (as_link("."), "not a file"),
]


@pytest.mark.parametrize("name", [CONFIG, SINGLE, "tokenizer.json", "chat_template.jinja"])
@pytest.mark.parametrize(("change", "reason"), FAULTS)
def test_a_file_that_is_none_or_lies_elsewhere_is_named(
    copied: Path, tmp_path: Path, name: str, change: Callable[[Path], None], reason: str
) -> None:
    change(copied / name)
    with pytest.raises(InputError, match=f"dense/{name}: {reason}") as caught:
        pin_model(str(copied), None, hashes=tmp_path / "hashes")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=f"dense/{name}: {reason}"):
        export_checkpoint(copied, PLAN, tmp_path / "pruned")


def test_links_in_a_circle_are_named(copied: Path) -> None:
    as_link(SINGLE)(copied / SINGLE)
    with pytest.raises(InputError, match="cannot be reached"):
        weight_files(copied)


@pytest.mark.parametrize("cache", ["models--org--name/blobs", ".dvc/cache/files/md5/0a"])
def test_links_into_a_cache_by_content_are_followed(
    copied: Path, tmp_path: Path, cache: str
) -> None:
    for number, path in enumerate(sorted(copied.iterdir())):
        blob = tmp_path / cache / str(number)
        blob.parent.mkdir(parents=True, exist_ok=True)
        path.rename(blob)
        path.symlink_to(blob)
    assert pin_model(str(copied), None, hashes=tmp_path / "hashes").files
    export_checkpoint(copied, PLAN, tmp_path / "pruned")
    assert not any(path.is_symlink() for path in (tmp_path / "pruned").iterdir())


@pytest.mark.parametrize(
    "file",
    [*(f"{root}a.safetensors" for root in ("../", "sub/../", "/")), "x" * 300 + ".safetensors"],
    ids=["above", "up again", "absolute", "too long"],
)
def test_an_index_names_files_below_the_folder_alone(copied: Path, file: str) -> None:
    split(copied, "a.safetensors")
    (copied / SINGLE).unlink()
    content = (copied / INDEX).read_text()
    (copied / INDEX).write_text(content.replace("a.safetensors", file, 1))
    with pytest.raises(InputError, match=rf"index\.json: names {file[:9]}"):
        weight_files(copied)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("adapter_config.json", "{}", "would add this adapter to the weights; merge it"),
        ("shard-00001-model-00001-of-00002.safetensors", "", "part of a distributed checkpoint"),
        (CONFIG, '{"transformers_weights": "b.safetensors"}', r"transformers_weights = 'b\.safe"),
    ],
)
def test_weights_that_transformers_would_read_besides_are_refused(
    copied: Path, name: str, text: str, reason: str
) -> None:
    (copied / name).write_text(text)
    with pytest.raises(InputError, match=f"{name}: .*{reason}"):
        weight_files(copied)
    with pytest.raises(InputError, match=reason):
        open_model(copied)


def test_a_tensor_in_two_files_is_refused(copied: Path) -> None:
    split(copied, "a.safetensors", "b.safetensors")
    (copied / SINGLE).rename(copied / "b.safetensors")
    with pytest.raises(InputError, match=r"b\.safetensors: holds .*, and a\.safetensors does too"):
        _ = Checkpoint(copied).tensors


def test_a_file_that_may_not_be_read_is_named(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read all files
    with pytest.raises(InputError, match="may not be read; change its permissions"):
        check_file(copied, copied / SINGLE)
