"""Data and models are read through the hub's own clients, from a server that may fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import download_hub
import models
import pytest
import yaml
from download_hub import Hub
from drawn_rows import Draw, picture_row, stored, three_subsets

from interlace.data import draw as subset_draws
from interlace.data.files import data_files
from interlace.data.subsets import check_subsets
from interlace.errors import InputError
from interlace.params.inputs import Data
from interlace.samples.rows import iterate
from interlace.sources.pin import pin_data, pin_model
from interlace.sources.pinned import PinnedData, PinnedModel

ROOT = Path(__file__).parents[2]
CONFIG = {
    "model_type": "qwen3_vl",
    "text_config": {"num_hidden_layers": 24},
    "vision_config": {"deepstack_visual_indexes": [0, 1, 2]},
}
MODEL = {
    "config.json": json.dumps(CONFIG).encode(),
    "model.safetensors": models.weights_file(),
    "processor_config.json": b"{}",
    "pytorch_model.bin": b"a pickle",
}
NAME = "org/rows"
COUNT = 200 + 50 + 7  # rows


@pytest.fixture(scope="module")
def subsets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three subsets: a, b and c."""
    return three_subsets(tmp_path_factory.mktemp("subsets"))


@pytest.fixture(scope="module")
def files(subsets: Path) -> dict[str, bytes]:
    """The same as a repository."""
    paths = sorted(subsets.glob("*/*.parquet"))
    return {path.relative_to(subsets).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits of the hub's clients, which take no time here, and of ours."""
    seconds: list[float] = []
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", seconds.append)
    monkeypatch.setattr(subset_draws, "WAITS", (0.01, 0.01))
    return seconds


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, naps: list[float]) -> Iterator[Hub]:
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


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    return Draw(tmp_path)


def pinned_data(folder: Path, name: str = NAME, revision: str | None = None) -> PinnedData:
    return pin_data(name, revision, field="data.id", hashes=folder / "hashes.json")


def pinned_model(folder: Path, name: str = "org/model", revision: str | None = None) -> PinnedModel:
    return pin_model(name, revision, hashes=folder / "hashes.json")


def check(folder: Path, name: str = NAME, revision: str | None = None) -> None:
    source = pinned_data(folder, name, revision)
    check_subsets(source, Data(id=name), checked=folder / "checked.json")


def test_the_hub_gives_the_same_rows_as_a_local_copy(
    hub: Hub, draw: Draw, subsets: Path, files: dict[str, bytes]
) -> None:
    hub.dataset(NAME, files)
    draw(Path(NAME), fraction=0.3)
    remote = draw.digest()
    draw(subsets, fraction=0.3)
    assert draw.digest() == remote


def test_only_the_bytes_of_drawn_row_groups_are_fetched(
    hub: Hub, draw: Draw, tmp_path: Path
) -> None:
    rows = [picture_row(number) for number in range(200)]
    large = stored(tmp_path / "large.parquet", rows).read_bytes()
    hub.dataset(NAME, {"a/train.parquet": large})
    draw(Path(NAME), fraction=0.05)
    assert len(hub.files_requested()) < 20
    assert draw.counts.bytes_read < len(large) / 4
    assert abs(hub.bytes_sent - draw.counts.bytes_read) < 20_000  # what the API says is sent too


@pytest.mark.parametrize(
    ("file", "fault", "times", "waits"),
    [
        ("b/train", "429", 1, [4.0]),  # three seconds, as the header asks, and one for its rounding
        ("b/train", "drop", 2, None),
        ("c/train", "500", 8, None),  # the client gives up after six
    ],
)
def test_a_request_that_fails_is_tried_again(
    hub: Hub,
    draw: Draw,
    files: dict[str, bytes],
    naps: list[float],
    file: str,
    fault: str,
    times: int,
    waits: list[float] | None,
) -> None:
    hub.dataset(NAME, files)
    hub.fail(file, fault, times)
    assert len(draw(Path(NAME))) == COUNT
    assert waits in (None, naps)


def test_a_subset_that_keeps_failing_is_named_and_the_next_run_resumes_at_it(
    hub: Hub, draw: Draw, files: dict[str, bytes]
) -> None:
    hub.dataset(NAME, files)
    draw(Path(NAME), workers=1)
    expected = draw.digest()
    hub.fail("c/train", "500", times=10**6)
    with pytest.raises(InputError, match=r"^subset c: cannot be read .*tried 3 times") as caught:
        draw(Path(NAME), workers=1)
    assert "\n" not in str(caught.value)
    hub.faults.clear()
    hub.requests.clear()
    draw(Path(NAME), workers=1)
    assert draw.digest() == expected
    assert {path.split("/")[-2] for path in hub.files_requested()} == {"c"}


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
    hub: Hub,
    tmp_path: Path,
    files: dict[str, bytes],
    kind: str,
    name: str,
    revision: str | None,
    reason: str,
) -> None:
    for source, gated in ((NAME, False), ("org/gated", True)):
        hub.dataset(source, files, gated)
        hub.model(source, MODEL, gated)
    with pytest.raises(InputError, match=rf"{kind}\.id = {name}.*{reason}") as caught:
        (check if kind == "data" else pinned_model)(tmp_path, name, revision)
    assert "\n" not in str(caught.value)


def test_data_without_parquet_or_behind_errors_are_refused_before_a_draw(
    hub: Hub, tmp_path: Path, files: dict[str, bytes]
) -> None:
    hub.dataset("org/text", {"README.md": b"# Rows"})
    with pytest.raises(InputError, match=r"data\.id = org/text: no \.parquet file"):
        check(tmp_path, "org/text")
    hub.dataset(NAME, files)
    hub.fail("/resolve/", "500", times=10**6)
    with pytest.raises(InputError, match="the hub answered 500; try again later") as caught:
        check(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_gated_repository_opens_with_a_token(
    hub: Hub, tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    hub.dataset(NAME, files, gated=True)
    check(tmp_path)


def test_a_file_that_was_in_order_is_not_checked_again(
    hub: Hub, tmp_path: Path, files: dict[str, bytes]
) -> None:
    hub.dataset(NAME, files)
    for expected in (3, 0):
        hub.requests.clear()
        check(tmp_path)
        assert len(set(hub.files_requested())) == expected


def test_a_model_is_pinned_by_its_configuration_and_fetched_without_pickles(
    hub: Hub, tmp_path: Path
) -> None:
    repository = hub.model("org/model", MODEL)
    model = pinned_model(tmp_path)
    assert (model.revision, model.n_layers) == (repository.sha, 24)
    assert not any("safetensors" in path for path in hub.files_requested())
    assert not (model.checkpoint().folder / "pytorch_model.bin").exists()
    hub.model("org/pickled", {name: MODEL[name] for name in MODEL if "safetensors" not in name})
    with pytest.raises(InputError, match=r"org/pickled: .*pytorch_model\.bin is pickled"):
        pinned_model(tmp_path, "org/pickled")


@pytest.mark.parametrize("fault", ["429", "500", "drop"])
def test_weights_are_fetched_whole_from_a_hub_that_fails_at_first(
    hub: Hub, tmp_path: Path, fault: str
) -> None:
    hub.model("org/model", MODEL)
    model = pinned_model(tmp_path)
    hub.fail("model.safetensors", fault, times=2)
    folder = model.checkpoint().folder
    assert (folder / "model.safetensors").read_bytes() == models.weights_file()
    assert [times for _, _, times in hub.faults] == [0]


def test_sources_are_read_as_pinned_when_the_repository_has_moved_on(
    hub: Hub, tmp_path: Path
) -> None:
    weights = [models.weights_file(value) for value in (b"w", b"W")]
    model, data = hub.model("org/model", MODEL), hub.dataset(NAME, {"a.parquet": weights[0]})
    pins = [(pinned_model(tmp_path), pinned_data(tmp_path))]
    model.commit(MODEL | {"model.safetensors": weights[1]})
    data.commit({"a.parquet": weights[1]})
    pins.append((pinned_model(tmp_path), pinned_data(tmp_path)))
    for (of_model, of_data), expected in zip(pins, weights, strict=True):
        assert (of_model.checkpoint().folder / "model.safetensors").read_bytes() == expected
        assert [file.open().read() for file in data_files(of_data)] == [expected]


STAGES = """
from stages.pin import main as pin
from stages.sample import main as sample
pin([], standalone_mode=False)
sample([], standalone_mode=False)
"""


def run_stages(folder: Path, server: Hub) -> subprocess.CompletedProcess[str]:
    """Run `pin` and `sample` as a user would, with HF_ENDPOINT, from an empty cache."""
    environment = {name: value for name, value in os.environ.items() if name != "DVC_STAGE"}
    environment |= {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_ENDPOINT": server.url, "HF_HOME": str(folder / "home")}
    return subprocess.run(
        [sys.executable, "-c", STAGES],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_stages_read_from_the_endpoint_of_the_environment(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    params = {
        "model": {"id": "org/model"},
        "data": {"id": NAME, "fraction": 0.5, "weights": {"c": 2.0}},
        "evaluate": {"benchmarks": ["AI2D"]},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    with download_hub.serving() as server:
        server.dataset(NAME, files)
        server.model("org/model", MODEL)
        process = run_stages(tmp_path, server)
    assert process.returncode == 0, process.stderr
    assert len(list(iterate(tmp_path / "data/train"))) == 100 + 25 + 7
    sheet = json.loads((tmp_path / "data/datasheet.json").read_text())
    assert sheet["by_source"]["c"]["rows"] == 7
