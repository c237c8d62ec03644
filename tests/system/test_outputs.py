"""Outputs appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from interlace.errors import InputError
from interlace.system import outputs
from interlace.system.outputs import link_or_copy, refusals_named, remove, whole, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An old output, a folder with one file."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/a").write_text("old")
    return tmp_path / "model"


def test_a_failure_leaves_the_old_output(tmp_path: Path, model: Path) -> None:
    for path in (model / "a", model):
        with pytest.raises(RuntimeError), whole(path) as partial:
            partial.mkdir()
            raise RuntimeError
        assert (model / "a").read_text() == "old"
        assert (names(model), names(tmp_path)) == (["a"], ["model"])


def test_an_output_appears_when_it_is_whole_with_its_parents(tmp_path: Path) -> None:
    with whole(tmp_path / "a/b/c.json") as partial:
        partial.write_text("new")
        assert not (tmp_path / "a/b/c.json").exists()
    assert (tmp_path / "a/b/c.json").read_text() == "new"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_files_have_the_rights_that_the_umask_leaves(tmp_path: Path, umask: int, mode: int) -> None:
    (tmp_path / "cached").write_text("x")
    (tmp_path / "cached").chmod(0o444)
    before = os.umask(umask)
    try:
        with whole(tmp_path / "a.safetensors") as partial:
            save_file({"x": np.zeros(2)}, partial)  # private, in safetensors 0.8
        with whole(tmp_path / "folder") as partial:
            partial.mkdir()
            save_file({"x": np.zeros(2)}, partial / "b.safetensors")
            link_or_copy(tmp_path / "cached", partial / "link")
    finally:
        os.umask(before)
    for name in ("a.safetensors", "folder/b.safetensors"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "cached").stat().st_mode) == 0o444


def test_a_folder_is_replaced_not_merged(tmp_path: Path, model: Path) -> None:
    (tmp_path / ".model.1a2b.lock").touch()  # of a killed run
    for name in (".model.1a2b.partial", ".model.1a2b.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "left over").write_text("x")
    with whole(model) as partial:
        partial.mkdir()
        (partial / "fresh").write_text("new")
    assert names(model) == ["fresh"]
    assert names(tmp_path) == ["model"]


def test_a_folder_whose_replacement_was_cut_off_is_restored(tmp_path: Path, model: Path) -> None:
    (tmp_path / ".model.1a2b.lock").touch()
    model.rename(tmp_path / ".model.1a2b.old")  # a killed run had moved it away
    with pytest.raises(RuntimeError), whole(model):
        raise RuntimeError
    assert (model / "a").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_two_writers_of_a_folder_do_not_harm_each_other(tmp_path: Path, model: Path) -> None:
    with whole(model) as first:
        first.mkdir()
        with whole(model) as second:
            second.mkdir()
            (second / "b").touch()
        assert names(model) == ["b"]
        (first / "c").touch()
    assert names(model) == ["c"]
    assert names(tmp_path) == ["model"]


def test_a_folder_takes_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "model").touch()
    with whole(tmp_path / "model") as partial:
        partial.mkdir()
    assert (tmp_path / "model").is_dir()
    assert names(tmp_path) == ["model"]


@pytest.mark.skipif(sys.platform != "linux", reason="takes two steps elsewhere")
def test_a_folder_is_replaced_in_one_step(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "replace")
    with whole(model) as partial:
        partial.mkdir()
    assert names(model) == []
    assert names(tmp_path) == ["model"]


def test_a_folder_that_cannot_be_replaced_stays(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace
    monkeypatch.setattr("interlace.system.outputs._exchange", lambda *_: False)

    def interrupted(source: Path, target: Path) -> None:
        if source.name.endswith(".partial"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), whole(model) as partial:
        partial.mkdir()
    assert (model / "a").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_tensors_that_the_disk_cannot_hold_are_one_line(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # pytest's own output included
    try:
        with pytest.raises(InputError) as refusal, whole(tmp_path / "batch") as partial:
            save_file({"states": np.zeros(10_000)}, partial)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "batch: could not be written: File too large; free" in str(refusal.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize("folder", ["artifacts", "artifacts/evaluation", "dangling/evaluation"])
def test_a_file_where_a_folder_should_be_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("artifacts").touch()
    Path("dangling").symlink_to("nowhere")
    blocked = folder.partition("/")[0]
    with pytest.raises(InputError, match=f"^{blocked}: a file where a folder should be"):
        write_json(Path(folder, "dense.json"), [])


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_missing_right_is_named(number: int) -> None:
    with pytest.raises(InputError, match=r"^\.scratch/locks: .*; let this user"), refusals_named():
        raise OSError(number, os.strerror(number), ".scratch/locks")


def test_a_folder_that_exists_already_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError), refusals_named():
        tmp_path.mkdir()


def test_another_failure_of_safetensors_is_no_refusal(tmp_path: Path) -> None:
    with pytest.raises(SafetensorError), whole(tmp_path / "batch"):
        raise SafetensorError("I/O error: Input/output error (os error 5)")


def test_a_read_only_output_is_replaced_not_written_through(tmp_path: Path) -> None:
    cached, output = tmp_path / "cached", tmp_path / "plan.json"
    cached.write_text("cached")
    os.link(cached, output)  # as DVC links files of its cache
    output.chmod(0o444)
    write_json(output, [])
    assert cached.read_text() == "cached"
    assert json.loads(output.read_text()) == []


def test_json_keeps_the_order_of_keys_and_ends_in_a_newline(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": "ä"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": "ä"\n}\n'


def test_links_are_followed_to_copy_and_not_to_remove(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"123")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    link_or_copy(tmp_path / "link", tmp_path / "copy")
    assert not (tmp_path / "copy").is_symlink()
    assert (tmp_path / "copy").read_bytes() == b"123"
    remove(tmp_path / "link")
    assert names(tmp_path) == ["copy", "real"]


@pytest.mark.parametrize(("pieces", "calls"), [([2**26], 1), ([2**25, 2**25], 1), ([2**25], 0)])
def test_a_growing_file_is_written_by_the_system_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: list[int], calls: int
) -> None:
    starts: list[int] = []
    system = SimpleNamespace(sync_file_range=lambda number, *_: starts.append(number))
    monkeypatch.setattr(outputs.ctypes, "CDLL", lambda name: system)
    with (tmp_path / "a").open("wb") as file, outputs.written_while_growing(file) as grown:
        for size in pieces:
            grown(size)
    assert len(starts) == calls
