"""Data and models are read through the hub's own clients, from a server that may fail."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hub as hubs
import pytest
from drawn_rows import Draw, picture_row, stored, three_subsets
from hub import MODEL, Hub

from interlace.data import draw as subset_draws
from interlace.data.files import data_files
from interlace.data.subsets import check_subsets
from interlace.errors import InputError
from interlace.params.inputs import Data
from interlace.samples.rows import iterate
from interlace.sources.pin import pin_data, pin_model
from interlace.sources.pinned import PinnedData, PinnedModel
from interlace.system.documents import as_yaml

ROOT = Path(__file__).parents[2]
NAME = "org/rows"
DATA = f"datasets/{NAME}"


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
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, on which neither its clients nor a draw wait before they try again."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    monkeypatch.setattr(subset_draws, "WAITS", (0.01, 0.01))
    with hubs.running(monkeypatch, tmp_path) as hub:
        yield hub


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
    hub.add(DATA, files)
    draw(Path(NAME), fraction=0.3)
    remote = draw.digest()
    draw(subsets, fraction=0.3)
    assert draw.digest() == remote


def test_only_the_bytes_of_drawn_row_groups_are_fetched(
    hub: Hub, draw: Draw, tmp_path: Path
) -> None:
    rows = [picture_row(number) for number in range(200)]
    large = stored(tmp_path / "large.parquet", rows).read_bytes()
    hub.add(DATA, {"a/train.parquet": large})
    draw(Path(NAME), fraction=0.05)
    assert len(hub.files_requested()) < 20
    assert draw.counts.bytes_read < len(large) / 4
    assert abs(hub.bytes_sent - draw.counts.bytes_read) < 20_000  # what the API says is sent too


def test_a_subset_that_fails_for_longer_than_the_client_tries_is_tried_again(
    hub: Hub, draw: Draw, files: dict[str, bytes]
) -> None:
    hub.add(DATA, files)
    hub.fail("c/train", 500, times=8)  # the client gives up after six
    assert len(draw(Path(NAME))) == 200 + 50 + 7


def test_a_subset_that_keeps_failing_is_named_and_the_next_run_resumes_at_it(
    hub: Hub, draw: Draw, files: dict[str, bytes]
) -> None:
    hub.add(DATA, files)
    draw(Path(NAME), workers=1)
    expected = draw.digest()
    hub.fail("c/train", 500)
    with pytest.raises(InputError, match=r"^subset c: cannot be read: .*tried 3 times") as caught:
        draw(Path(NAME), workers=1)
    assert "\n" not in str(caught.value)
    hub.failures.clear()
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
        hub.add(f"datasets/{source}", files, gated)
        hub.add(source, MODEL, gated)
    with pytest.raises(InputError, match=rf"{kind}\.id = {name}.*{reason}") as caught:
        (check if kind == "data" else pinned_model)(tmp_path, name, revision)
    assert "\n" not in str(caught.value)


def test_data_without_parquet_or_behind_errors_are_refused_before_a_draw(
    hub: Hub, tmp_path: Path, files: dict[str, bytes]
) -> None:
    hub.add("datasets/org/text", {"README.md": b"# Rows"})
    with pytest.raises(InputError, match=r"data\.id = org/text: no \.parquet file"):
        check(tmp_path, "org/text")
    hub.add(DATA, files)
    hub.fail("/resolve/", 500)
    with pytest.raises(InputError, match="the hub answered 500; try again later") as caught:
        check(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_was_in_order_is_not_checked_again(
    hub: Hub, tmp_path: Path, files: dict[str, bytes]
) -> None:
    hub.add(DATA, files)
    for expected in (3, 0):
        hub.requests.clear()
        check(tmp_path)
        assert len(set(hub.files_requested())) == expected


def test_a_model_is_pinned_by_its_configuration_and_fetched_without_pickles(
    hub: Hub, tmp_path: Path
) -> None:
    pickled = MODEL | {"pytorch_model.bin": b"a pickle"}
    hub.add("org/model", pickled)
    model = pinned_model(tmp_path)
    assert (model.revision, model.n_layers) == (hubs.commit_id(pickled), 24)
    assert not any("safetensors" in path for path in hub.files_requested())
    assert not (model.checkpoint().folder / "pytorch_model.bin").exists()
    hub.add("org/pickled", {name: pickled[name] for name in ("config.json", "pytorch_model.bin")})
    with pytest.raises(InputError, match=r"org/pickled: .*pytorch_model\.bin is pickled"):
        pinned_model(tmp_path, "org/pickled")


def test_sources_are_read_as_pinned_when_the_repository_has_moved_on(
    hub: Hub, tmp_path: Path
) -> None:
    weights = [MODEL["model.safetensors"][:-1] + value for value in (b"w", b"W")]
    files = [MODEL | {"model.safetensors": value} for value in weights]
    model, data = hub.add("org/model", files[0]), hub.add(DATA, {"a.parquet": weights[0]})
    pins = [(pinned_model(tmp_path), pinned_data(tmp_path))]
    model.commit(files[1])
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


def test_the_stages_read_from_a_hub_in_processes_of_their_own(
    hub: Hub, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.add(DATA, files)
    hub.add("org/model", MODEL)
    data = {"id": NAME, "fraction": 0.5, "weights": {"c": 2.0}}
    params = {"model": {"id": "org/model"}, "data": data, "evaluate": {"benchmarks": ["AI2D"]}}
    (tmp_path / "params.yaml").write_text(as_yaml(params))
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    environment |= {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    process = subprocess.run(
        [sys.executable, "-c", STAGES],
        cwd=tmp_path,
        env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert len(list(iterate(tmp_path / "data/train"))) == 100 + 25 + 7
