"""A source is pinned by what it holds; what is not a supported model is refused at once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub import MODEL
from huggingface_hub import constants

from interlace.data.files import data_files
from interlace.errors import InputError
from interlace.sources.pin import pin_data, pin_model
from interlace.sources.pinned import PinnedData, PinnedModel, PinnedSources

SHA = "0123456789abcdef0123456789abcdef01234567"


def write_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, data in MODEL.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A local model."""
    return write_model(tmp_path / "model")


@pytest.fixture
def pin(tmp_path: Path) -> Callable[[Path | str], PinnedModel]:
    return lambda source: pin_model(str(source), None, hashes=tmp_path / "hashes.json")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache with one model in it, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub/models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(SHA)
    return write_model(repository / "snapshots" / SHA)


def test_a_pin_describes_the_decoder_and_the_files(folder: Path, pin: Any) -> None:
    pinned = pin(folder)
    assert (pinned.id, pinned.model_type) == (str(folder), "qwen3_vl")
    assert (pinned.n_layers, pinned.deepstack_layers) == (24, 3)
    assert set(pinned.files) == MODEL.keys()
    assert str(folder) not in pinned.model_dump_json(exclude={"id"})
    assert pinned.checkpoint().folder == folder


def test_a_pin_changes_with_the_bytes_and_names_of_files_alone(folder: Path, pin: Any) -> None:
    first = pin(folder)
    os.utime(folder / "model.safetensors", (1, 1))
    assert pin(folder) == first
    (folder / "model.safetensors").write_bytes(MODEL["model.safetensors"][:-1] + b"W")
    (folder / "vocab.json").write_text("{}")
    changed = pin(folder).files.items() - first.files.items()
    assert {name for name, _ in changed} == {"model.safetensors", "vocab.json"}


def test_a_file_that_did_not_change_is_not_read_again(
    folder: Path, pin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pin(folder)
    monkeypatch.setattr("interlace.sources.pin._sha256", None)
    assert pin(folder) == first


@pytest.mark.parametrize(
    ("file", "renamed", "reason"),
    [
        ("model.safetensors", "pytorch_model.bin", r"pytorch_model\.bin is pickled"),
        ("config.json", "other.json", r"no config\.json"),
        ("processor_config.json", "other.json", r"no processor_config\.json"),
    ],
)
def test_a_model_that_lacks_a_file_is_refused(
    folder: Path, pin: Any, file: str, renamed: str, reason: str
) -> None:
    (folder / file).rename(folder / renamed)
    with pytest.raises(InputError, match=reason):
        pin(folder)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"model_type": "qwen3_vl"}', '{"model_type": "bert"}']
)
def test_a_configuration_of_no_supported_model_is_refused(
    folder: Path, pin: Any, text: str
) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json: "):
        pin(folder)


def test_a_model_in_the_hub_s_cache_is_pinned_and_needs_its_weights(hub: Path, pin: Any) -> None:
    model = pin("org/name")
    assert (model.revision, model.files) == (SHA, None)
    assert (model.n_layers, model.deepstack_layers) == (24, 3)
    (hub / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no \.safetensors weights"):
        model.checkpoint()


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("org/other", "org/other: .*hub cannot be reached"),
        ("org/a name?", r"org/a name\?: no such repository"),
        ("nowhere/at/all", "nowhere/at/all: no such f"),
    ],
)
def test_a_source_that_cannot_be_had_is_named_in_one_line(
    tmp_path: Path, pin: Any, source: str, reason: str
) -> None:
    with pytest.raises(InputError, match=rf"model\.id = {reason}") as of_model:
        pin(source)
    with pytest.raises(InputError, match=rf"evaluate\.heldout = {reason}") as of_data:
        pin_data(source, None, field="evaluate.heldout", hashes=tmp_path / "h")
    assert "\n" not in f"{of_model.value}{of_data.value}"


def test_data_in_one_file_is_pinned_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"one")
    pins = [pin_data(str(path), None, field="data.id", hashes=tmp_path / "h") for _ in range(2)]
    path.write_bytes(b"two")
    changed = pin_data(str(path), None, field="data.id", hashes=tmp_path / "h")
    assert pins[0] == pins[1] != changed


def test_data_in_a_folder_is_read_in_the_order_of_names(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("b/1.parquet", "a/2.parquet", "a/readme.md"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(b"x")
    pinned = pin_data(str(data), None, field="data.id", hashes=tmp_path / "h")
    with pytest.raises(InputError, match=r"data\.id = .*: no \.parquet file in this folder"):
        pin_data(str(tmp_path / "model"), None, field="data.id", hashes=tmp_path / "h")
    assert [file.name for file in data_files(pinned)] == ["a/2.parquet", "b/1.parquet"]
    assert [file.open().read() for file in data_files(pinned)] == [b"x", b"x"]


def test_sources_are_read_as_they_were_written(folder: Path, pin: Any, tmp_path: Path) -> None:
    data = PinnedData(id="org/rows", revision=SHA)
    sources = PinnedSources(model=pin(folder), data=data)
    text = json.dumps(sources.as_json())
    (tmp_path / "sources.json").write_text(text)
    assert PinnedSources.read(tmp_path / "sources.json") == sources
    assert list(json.loads(text)["pinned_model"]) == [
        "id", "trust_remote_code", "files", "model_type", "n_layers", "deepstack_layers"
    ]  # fmt: skip
    assert json.loads(text)["pinned_data"] == {"id": "org/rows", "revision": SHA}
    assert json.loads(text)["pinned_heldout"] is None
    assert (
        not sources.local
        and sources.model_copy(update={"data": data.model_copy(update={"files": {}})}).local
    )


def test_sources_that_are_not_what_pin_writes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sources.json"
    with pytest.raises(InputError, match=r"sources\.json: no such file"):
        PinnedSources.read(path)
    path.write_text('{"pinned_model": null}')
    with pytest.raises(InputError, match=r"sources\.json: model"):
        PinnedSources.read(path)
