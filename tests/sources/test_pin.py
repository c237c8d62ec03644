"""A source is pinned by what it holds; what is not a supported model is refused at once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import pytest

from interlace.data.files import data_files
from interlace.errors import InputError
from interlace.sources.pin import pin_data, pin_model
from interlace.sources.pinned import PinnedData, PinnedModel, PinnedSources

CONFIG: dict[str, Any] = {
    "model_type": "qwen3_vl",
    "text_config": {"num_hidden_layers": 36},
    "vision_config": {"deepstack_visual_indexes": [8, 16, 24]},
}
SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(CONFIG))
    (made / "model.safetensors").write_bytes(models.weights_file())
    (made / "processor_config.json").write_text("{}")
    return made


@pytest.fixture
def pin(tmp_path: Path) -> Callable[[Path | str], PinnedModel]:
    return lambda source: pin_model(str(source), None, hashes=tmp_path / "hashes.json")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache with one model in it, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub/models--org--name"
    snapshot = repository / "snapshots" / SHA
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(SHA)
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    (snapshot / "model.safetensors").write_bytes(models.weights_file())
    return snapshot


def test_a_pin_says_what_choosing_layers_needs(folder: Path, pin: Any) -> None:
    pinned = pin(folder)
    assert (pinned.id, pinned.model_type) == (str(folder), "qwen3_vl")
    assert (pinned.n_layers, pinned.deepstack_layers) == (36, 3)
    assert set(pinned.files) == {"config.json", "model.safetensors", "processor_config.json"}


def test_an_unchanged_model_is_pinned_alike(folder: Path, pin: Any) -> None:
    assert pin(folder) == pin(folder)


def test_a_touched_file_does_not_change_the_pin(folder: Path, pin: Any) -> None:
    before = pin(folder)
    os.utime(folder / "model.safetensors", (1, 1))
    assert pin(folder) == before


def test_another_byte_changes_the_pin(folder: Path, pin: Any) -> None:
    before = pin(folder)
    (folder / "model.safetensors").write_bytes(models.weights_file(b"W"))
    after = pin(folder)
    assert [n for n in before.files if before.files[n] != after.files[n]] == ["model.safetensors"]


def test_another_file_changes_the_pin(folder: Path, pin: Any) -> None:
    before = pin(folder)
    (folder / "tokenizer.json").write_text("{}")
    assert pin(folder) != before


def test_a_file_that_did_not_change_is_not_read_again(
    folder: Path, pin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pin(folder)

    def unexpected(_: Any) -> str:
        raise AssertionError

    monkeypatch.setattr("interlace.sources.pin._sha256", unexpected)
    assert pin(folder) == before


def test_pickled_weights_are_refused(folder: Path, pin: Any) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin is pickled and is not read"):
        pin(folder)


def test_a_folder_without_weights_is_refused(folder: Path, pin: Any) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no \.safetensors weights"):
        pin(folder)


def test_a_folder_without_configuration_is_refused(folder: Path, pin: Any) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"no config\.json"):
        pin(folder)


def test_a_model_of_another_kind_is_refused_with_those_supported(folder: Path, pin: Any) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "num_hidden_layers": 12}))
    with pytest.raises(InputError, match="'bert' is not a supported") as caught:
        pin(folder)
    assert str(folder / "config.json") in str(caught.value)
    assert all(name in str(caught.value) for name in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"))


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "qwen3_vl"}'])
def test_a_broken_configuration_is_refused(folder: Path, pin: Any, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json: "):
        pin(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, pin: Any) -> None:
    with pytest.raises(InputError, match=r"model\.id = .*nowhere: no such folder"):
        pin(tmp_path / "nowhere")


@pytest.mark.parametrize("cut", [0, 5, 20, -1])
def test_a_weight_file_that_is_cut_short_is_refused(folder: Path, pin: Any, cut: int) -> None:
    (folder / "model.safetensors").write_bytes(models.weights_file()[:cut])
    with pytest.raises(InputError, match=r"model\.safetensors: not a whole safetensors file"):
        pin(folder)


SHARD = "model-00001-of-00002.safetensors"


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"t": SHARD, "u": "model-00002-of-00002.safetensors"}, "names model-00002.*is not there"),
        ({"t": SHARD, "u": SHARD}, "names 1 tensors that are not where it says: u"),
        (None, f"{SHARD} is there, but neither .* copy the missing file"),
    ],
)
def test_a_sharded_model_that_is_not_all_there_is_refused(
    folder: Path, pin: Any, named: dict[str, str] | None, said: str
) -> None:
    (folder / "model.safetensors").rename(folder / SHARD)
    if named:
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": named}))
    with pytest.raises(InputError, match=said):
        pin(folder)


def test_a_model_without_its_processor_is_refused(folder: Path, pin: Any) -> None:
    (folder / "processor_config.json").unlink()
    with pytest.raises(InputError, match=r"no processor_config\.json"):
        pin(folder)


def test_a_local_model_is_used_where_it_lies(folder: Path, pin: Any) -> None:
    assert pin(folder).checkpoint().folder == folder


def test_a_hub_model_is_pinned_to_its_revision(hub: Path, pin: Any) -> None:
    pinned = pin("org/name")
    assert (pinned.revision, pinned.files) == (SHA, None)
    assert (pinned.n_layers, pinned.deepstack_layers) == (36, 3)


def test_a_pinned_hub_model_lies_in_the_hub_s_cache(hub: Path, pin: Any) -> None:
    assert pin("org/name").checkpoint().folder == hub


def test_a_hub_model_whose_weights_are_not_in_the_cache_is_refused(hub: Path, pin: Any) -> None:
    (hub / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no \.safetensors weights"):
        pin("org/name").checkpoint()


@pytest.mark.usefixtures("hub")
def test_an_unreachable_hub_is_one_line(pin: Any) -> None:
    with pytest.raises(
        InputError, match=r"model\.id = org/other: .*hub cannot be reached"
    ) as caught:
        pin("org/other")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("hub")
def test_unreachable_data_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.id = org/rows: .*hub cannot be reached") as caught:
        pin_data("org/rows", None, field="data.id", hashes=tmp_path / "hashes.json")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("hub")
def test_an_impossible_hub_name_is_one_line(pin: Any) -> None:
    with pytest.raises(InputError, match=r"model\.id = org/a name\?: no such repository"):
        pin("org/a name?")


def test_data_in_one_file_is_pinned_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"one")
    pins = [pin_data(str(path), None, field="data.id", hashes=tmp_path / "h") for _ in range(2)]
    path.write_bytes(b"two")
    changed = pin_data(str(path), None, field="data.id", hashes=tmp_path / "h")
    assert pins[0] == pins[1] != changed


def test_data_in_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("b/1.parquet", "a/2.parquet", "a/readme.md"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(b"x")
    pinned = pin_data(str(data), None, field="data.id", hashes=tmp_path / "h")
    assert [file.name for file in data_files(pinned)] == ["a/2.parquet", "b/1.parquet"]
    assert [file.open().read() for file in data_files(pinned)] == [b"x", b"x"]


def test_missing_data_is_named_with_its_parameter(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"evaluate\.heldout = .*gone\.parquet: no such file"):
        pin_data(str(tmp_path / "gone.parquet"), None, field="evaluate.heldout", hashes=tmp_path)


def test_a_folder_without_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \.parquet file in this folder"):
        pin_data(str(tmp_path), None, field="data.id", hashes=tmp_path / "h")


def test_pins_hold_no_absolute_paths_but_the_id(folder: Path, pin: Any) -> None:
    pinned = pin(folder)
    assert str(folder) not in pinned.model_dump_json(exclude={"id"})


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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, r"sources\.json: no such file; run `dvc repro pin`"),
        ('{"pinned_model": null}', r"sources\.json: model.*; run `dvc repro pin`"),
    ],
)
def test_sources_that_are_not_what_pin_writes_are_refused(
    tmp_path: Path, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / "sources.json").write_text(text)
    with pytest.raises(InputError, match=said):
        PinnedSources.read(tmp_path / "sources.json")
