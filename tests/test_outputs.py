"""Outputs appear whole or not at all."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from interlace.errors import InputError
from interlace.outputs import link_or_copy, remove, whole, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "plan.json"
    target.write_text("old")
    with pytest.raises(RuntimeError), whole(target) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert names(tmp_path) == ["plan.json"]


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "a").write_text("old")
    with pytest.raises(RuntimeError), whole(target) as partial:
        partial.mkdir()
        (partial / "a").write_text("half")
        raise RuntimeError
    assert (target / "a").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_nothing_is_in_place_while_it_is_written(tmp_path: Path) -> None:
    with whole(tmp_path / "a.json") as partial:
        partial.write_text("new")
        assert not (tmp_path / "a.json").exists()
    assert (tmp_path / "a.json").read_text() == "new"


def test_a_folder_is_replaced_not_merged(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "stale").write_text("old")
    with whole(target) as partial:
        partial.mkdir()
        (partial / "fresh").write_text("new")
    assert names(target) == ["fresh"]
    assert names(tmp_path) == ["model"]


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    leftover = tmp_path / ".model.partial"
    leftover.mkdir()
    (leftover / "half").write_text("x")
    with whole(tmp_path / "model") as partial:
        partial.mkdir()
    assert names(tmp_path / "model") == []
    assert names(tmp_path) == ["model"]


def test_a_folder_whose_replacement_was_cut_off_is_there_again(tmp_path: Path) -> None:
    old = tmp_path / ".model.old"  # a run was killed between moving it away and its successor in
    old.mkdir()
    (old / "a").write_text("old")
    with pytest.raises(RuntimeError), whole(tmp_path / "model"):
        raise RuntimeError
    assert (tmp_path / "model/a").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_a_folder_that_cannot_be_replaced_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "a").write_text("old")
    replace = os.replace

    def interrupted(source: Path, place: Path) -> None:
        if source.name.endswith(".partial"):
            raise KeyboardInterrupt
        replace(source, place)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), whole(target) as partial:
        partial.mkdir()
    assert (target / "a").read_text() == "old"
    assert names(tmp_path) == ["model"]


@contextmanager
def small_files() -> Iterator[None]:
    """No file may grow beyond a thousand bytes, this process's own output included."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_tensors_that_the_disk_cannot_hold_are_one_line(tmp_path: Path) -> None:
    said = "batch: could not be written: File too large; free"
    with pytest.raises(InputError, match=said), small_files(), whole(tmp_path / "batch") as partial:
        save_file({"states": np.zeros(10_000)}, partial)
    assert names(tmp_path) == []


def test_another_failure_of_safetensors_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(SafetensorError), whole(tmp_path / "batch"):
        raise SafetensorError("I/O error: Permission denied (os error 13)")


def test_a_missing_parent_is_made(tmp_path: Path) -> None:
    write_json(tmp_path / "a/b/c.json", {"x": 1})
    assert json.loads((tmp_path / "a/b/c.json").read_text()) == {"x": 1}


def test_a_read_only_output_is_replaced_not_written_through(tmp_path: Path) -> None:
    cached, target = tmp_path / "cached", tmp_path / "plan.json"
    cached.write_text("cached")
    os.link(cached, target)  # as DVC puts files from its cache into place
    target.chmod(0o444)
    write_json(target, [])
    assert cached.read_text() == "cached"


def test_json_keeps_the_order_of_keys_and_ends_in_a_newline(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": "ä"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": "ä"\n}\n'


def test_a_link_has_the_bytes_of_the_file_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"123")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    link_or_copy(tmp_path / "link", tmp_path / "copy")
    assert not (tmp_path / "copy").is_symlink()
    assert (tmp_path / "copy").read_bytes() == b"123"


def test_removing_a_link_leaves_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    remove(tmp_path / "link")
    assert names(tmp_path) == ["real"]
