"""Data and models are read through the hub's own clients, from a server that may fail."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import download_hub
import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from interlace.data import draw as subset_draws
from interlace.data.files import data_files
from interlace.data.sets import DrawCounts, sample
from interlace.data.subsets import check_subsets
from interlace.errors import InputError
from interlace.outputs import remove
from interlace.params.inputs import Data
from interlace.samples.rows import SCHEMA, iterate
from interlace.sources.pin import pin_data, pin_model
from interlace.sources.pinned import PinnedData

ROOT = Path(__file__).parents[2]
INPUT_SCHEMA = pa.schema([SCHEMA.field(name) for name in ("images", "texts", "source")])
CONFIG = {
    "model_type": "qwen3_vl",
    "text_config": {"num_hidden_layers": 24},
    "vision_config": {"deepstack_visual_indexes": [0, 1, 2]},
}
NAME = "org/rows"


def parquet(rows: list[dict[str, Any]], group: int = 10) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=INPUT_SCHEMA), file, row_group_size=group)
    return file.getvalue()


def subset_rows(name: str, n: int = 40, side: int = 16) -> list[dict[str, Any]]:
    return [
        {
            "images": [{"bytes": models.picture(i, side), "path": None}] if i % 3 else [],
            "texts": [{"user": f"{name} {i}?", "assistant": f"{i}"}],
            "source": name,
        }
        for i in range(n)
    ]


FILES = {
    **{f"{name}/train-00000-of-00001.parquet": parquet(subset_rows(name)) for name in "abc"},
    "README.md": b"# Rows\n",
}


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits of the hub's clients, which take no time here, and of ours."""
    taken: list[float] = []
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", taken.append)
    monkeypatch.setattr(subset_draws, "WAITS", (0.01, 0.01))
    return taken


@pytest.fixture
def hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, naps: list[float]
) -> Iterator[download_hub.Hub]:
    """A hub, the clients pointed at it, with an empty cache and no token."""
    from huggingface_hub import constants

    with download_hub.serving() as server:
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


MODEL = {
    "config.json": json.dumps(CONFIG).encode(),
    "model.safetensors": models.weights_file(),
    "processor_config.json": b"{}",
    "pytorch_model.bin": b"a pickle",
}


def pinned(tmp_path: Path, name: str = NAME, revision: str | None = None) -> PinnedData:
    return pin_data(name, revision, field="data.id", hashes=tmp_path / "hashes.json")


def check(tmp_path: Path, **data: Any) -> None:
    check_subsets(pinned(tmp_path), Data(id=NAME, **data), checked=tmp_path / "checked.json")


def draw(tmp_path: Path, **data: Any) -> DrawCounts:
    drawn = sample(
        data_files(pinned(tmp_path)),
        tmp_path / "train",
        tmp_path / "calibration",
        data=Data(id=NAME, **data),
        seed=0,
        scratch=tmp_path / "scratch",
        outlines=tmp_path / "outlines",
    )
    remove(tmp_path / "scratch")
    return drawn


def shards(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def test_the_hub_gives_the_same_rows_as_a_local_copy(hub: download_hub.Hub, tmp_path: Path) -> None:
    hub.dataset(NAME, FILES)
    draw(tmp_path, fraction=0.3)
    copy = tmp_path / "copy"
    for name, data in FILES.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(data)
    remote = shards(tmp_path / "train")
    sample(
        data_files(pinned(tmp_path, str(copy))),
        *(tmp_path / "local" / name for name in ("train", "calibration")),
        data=Data(id="x", fraction=0.3),
        seed=0,
        scratch=tmp_path / "other",
        outlines=tmp_path / "outlines",
    )
    assert shards(tmp_path / "local/train") == remote


def test_only_the_bytes_of_drawn_row_groups_are_fetched(
    hub: download_hub.Hub, tmp_path: Path
) -> None:
    large = parquet(subset_rows("a", 200, side=64))
    hub.dataset(NAME, {"a/train.parquet": large})
    drawn = draw(tmp_path, fraction=0.05)
    fetched = [path for method, path in hub.requests if "/resolve/" in path]
    assert len(fetched) < 20
    assert drawn.bytes_read < len(large) / 4
    assert abs(hub.bytes_sent - drawn.bytes_read) < 20_000  # what the API says is sent too


@pytest.mark.parametrize(
    ("file", "fault", "times", "waits"),
    [
        ("b/train", "429", 1, [4.0]),  # three seconds, as the header asks, and one for its rounding
        ("b/train", "drop", 2, None),
        ("c/train", "500", 8, None),  # the client gives up after six
    ],
)
def test_a_request_that_fails_is_tried_again(
    hub: download_hub.Hub, tmp_path: Path, naps: list[float], file: str, fault: str, times: int,
    waits: list[float] | None,
) -> None:  # fmt: skip
    hub.dataset(NAME, FILES)
    hub.fail(file, fault, times)
    assert draw(tmp_path).rows == 120
    assert waits in (None, naps)


def test_a_subset_that_keeps_failing_is_named_and_the_next_run_resumes_at_it(
    hub: download_hub.Hub, tmp_path: Path
) -> None:
    hub.dataset(NAME, FILES)
    whole = draw(tmp_path, workers=1)
    expected = shards(tmp_path / "train")
    hub.fail("c/train", "500", times=10**6)
    with pytest.raises(InputError, match=r"^subset c: cannot be read .*tried 3 times") as caught:
        draw(tmp_path, workers=1)
    assert "\n" not in str(caught.value)
    hub.faults.clear()
    hub.requests.clear()
    assert draw(tmp_path, workers=1) == whole
    assert shards(tmp_path / "train") == expected
    assert {path.split("/")[-2] for _, path in hub.requests if "/resolve/" in path} == {"c"}


def test_footers_are_read_once(hub: download_hub.Hub, tmp_path: Path) -> None:
    hub.dataset(NAME, FILES)
    draw(tmp_path, fraction=0.1)
    first = sum("/resolve/" in path for _, path in hub.requests)
    hub.requests.clear()
    draw(tmp_path, fraction=0.1)
    assert sum("/resolve/" in path for _, path in hub.requests) < first


@pytest.mark.parametrize("kind", ["data", "model"])
@pytest.mark.parametrize(
    ("name", "revision", "reason"),
    [
        ("org/none", None, "no such repository"),
        (NAME, "v9", r"\(revision v9\): the repository has no such revision"),
        ("org/gated", None, "access is restricted; ask for it on the hub"),
    ],
)
def test_a_source_that_the_hub_refuses_is_named_in_one_line(
    hub: download_hub.Hub,
    tmp_path: Path,
    kind: str,
    name: str,
    revision: str | None,
    reason: str,
) -> None:
    for gated, source in enumerate((NAME, "org/gated")):
        hub.dataset(source, FILES, gated=bool(gated))
        hub.model(source, MODEL, gated=bool(gated))
    with pytest.raises(InputError, match=rf"{kind}\.id = {name}.*{reason}") as caught:
        if kind == "model":
            pin_model(name, revision, hashes=tmp_path / "hashes.json")
        else:
            source = pinned(tmp_path, name, revision)
            check_subsets(source, Data(id=name), checked=tmp_path / "checked.json")
    assert "\n" not in str(caught.value)


OTHER_SCHEMA = io.BytesIO()
pq.write_table(pa.table({"question": ["a"]}), OTHER_SCHEMA)


@pytest.mark.parametrize(
    ("files", "subsets", "fault", "reason"),
    [
        (FILES, ("bb",), "", "no subset 'bb'"),
        (
            FILES | {"b/train-00000-of-00001.parquet": OTHER_SCHEMA.getvalue()},
            *((), ""),
            "b/train-.*: column 'images' is missing",
        ),
        ({"README.md": b""}, (), "", r"data\.id = org/rows: no \.parquet file"),
        (FILES, (), "500", "the hub answered 500; try again later"),
    ],
    ids=["subset", "schema", "no Parquet", "errors"],
)
def test_data_that_cannot_be_read_are_refused_before_anything_is_drawn(
    hub: download_hub.Hub,
    tmp_path: Path,
    files: dict[str, bytes],
    subsets: tuple[str, ...],
    fault: str,
    reason: str,
) -> None:
    hub.dataset(NAME, files)
    if fault:
        hub.fail("/resolve/", fault, times=10**6)
    with pytest.raises(InputError, match=reason) as caught:
        check(tmp_path, subsets=subsets)
    assert "\n" not in str(caught.value)


def test_a_gated_repository_opens_with_a_token(
    hub: download_hub.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    hub.dataset(NAME, FILES, gated=True)
    check(tmp_path)
    assert draw(tmp_path).rows == 120


def test_a_file_that_was_in_order_is_not_looked_at_again(
    hub: download_hub.Hub, tmp_path: Path
) -> None:
    hub.dataset(NAME, FILES)
    for expected in (3, 0):
        hub.requests.clear()
        check(tmp_path)
        asked = {path for _, path in hub.requests if "/resolve/" in path}
        assert len(asked) == expected


def test_a_model_is_pinned_by_its_configuration_and_fetched_without_pickles(
    hub: download_hub.Hub, tmp_path: Path
) -> None:
    repository = hub.model("org/model", MODEL)
    found = pin_model("org/model", None, hashes=tmp_path / "hashes.json")
    assert (found.revision, found.n_layers) == (repository.sha, 24)
    assert not any("safetensors" in path for _, path in hub.requests)
    assert not (found.checkpoint().folder / "pytorch_model.bin").exists()
    hub.model("org/pickled", {name: MODEL[name] for name in MODEL if "safetensors" not in name})
    with pytest.raises(InputError, match=r"org/pickled: .*pytorch_model\.bin is pickled"):
        pin_model("org/pickled", None, hashes=tmp_path / "hashes.json")


@pytest.mark.parametrize("fault", ["429", "500", "drop"])
def test_weights_are_fetched_whole_from_a_hub_that_fails_at_first(
    hub: download_hub.Hub, tmp_path: Path, fault: str
) -> None:
    hub.model("org/model", MODEL)
    found = pin_model("org/model", None, hashes=tmp_path / "hashes.json")
    hub.fail("model.safetensors", fault, times=2)  # also what only asks for the header
    folder = found.checkpoint().folder
    assert (folder / "model.safetensors").read_bytes() == models.weights_file()
    asked = [path for _, path in hub.requests if path.endswith("model.safetensors")]
    assert len(asked) > 2


def test_a_pinned_model_is_fetched_as_it_was_when_the_repository_has_moved_on(
    hub: download_hub.Hub, tmp_path: Path
) -> None:
    repository = hub.model("org/model", MODEL)
    found = pin_model("org/model", None, hashes=tmp_path / "hashes.json")
    repository.commit(MODEL | {"model.safetensors": models.weights_file(b"W")})
    assert (found.checkpoint().folder / "model.safetensors").read_bytes() == models.weights_file()
    again = pin_model("org/model", None, hashes=tmp_path / "hashes.json")
    assert (again.checkpoint().folder / "model.safetensors").read_bytes() == models.weights_file(
        b"W"
    )


def test_pinned_data_are_drawn_as_they_were_when_the_repository_has_moved_on(
    hub: download_hub.Hub, tmp_path: Path
) -> None:
    repository = hub.dataset(NAME, FILES)
    draw(tmp_path)
    before, found = shards(tmp_path / "train"), pinned(tmp_path)
    moved = {name: parquet(subset_rows(f"new_{name[0]}", 7)) for name in FILES if "/" in name}
    repository.commit(moved)
    places = (tmp_path / "later" / name for name in ("train", "calibration"))
    sample(
        data_files(found), *places, data=Data(id=NAME), seed=0,
        scratch=tmp_path / "scratch", outlines=tmp_path / "other_outlines",
    )  # fmt: skip
    assert shards(tmp_path / "later/train") == before
    remove(tmp_path / "scratch")
    assert draw(tmp_path).rows == 21


def in_a_process(
    code: str, folder: Path, server: download_hub.Hub
) -> subprocess.CompletedProcess[str]:
    """Run Python as a user would, with HF_ENDPOINT, from an empty cache."""
    online = {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    environment = (
        os.environ
        | online
        | {
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(folder / "home"),
            "PYTHONPATH": str(ROOT),
        }
    )
    environment.pop("DVC_STAGE", None)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


STAGES = """
from stages.pin import main as pin
from stages.sample import main as sample
pin([], standalone_mode=False)
sample([], standalone_mode=False)
"""


def test_the_stages_read_from_the_endpoint_of_the_environment(tmp_path: Path) -> None:
    params = {
        "model": {"id": "org/model"},
        "data": {"id": NAME, "fraction": 0.5, "weights": {"a": 2.0}},
        "evaluate": {"benchmarks": ["AI2D"]},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    with download_hub.serving() as server:
        server.dataset(NAME, FILES)
        server.model("org/model", MODEL)
        done = in_a_process(STAGES, tmp_path, server)
    assert done.returncode == 0, done.stderr
    assert len(list(iterate(tmp_path / "data/train"))) == 40 + 20 + 20
    sheet = json.loads((tmp_path / "data/datasheet.json").read_text())
    assert sheet["by_source"]["a"]["rows"] == 40
