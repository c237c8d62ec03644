"""Work to resume from is read back as it was written, or done again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from interlace.system.resumable import intact, keep_json, kept


def test_what_was_kept_is_intact(tmp_path: Path) -> None:
    assert not intact(tmp_path / "a.json")
    keep_json(tmp_path / "a.json", [1])
    assert intact(tmp_path / "a.json")
    for name in "ab":
        with kept(tmp_path / "folder") as partial:
            partial.mkdir()
            (partial / name).write_text("x")
        assert intact(tmp_path / "folder")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "flipped": lambda file: file.write_bytes(b"\x01" + file.read_bytes()[1:]),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "gone": lambda file: file.unlink(),
    "renamed": lambda file: file.rename(file.with_name("other")),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "no digest": lambda file: file.with_name(f"{file.name}.sha256").unlink(missing_ok=True),
}


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "renamed"])
def test_a_damaged_file_is_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    path = tmp_path / "a.json"
    keep_json(path, {"a": 1})
    DAMAGES[damage](path)
    assert not intact(path)
    assert not path.exists()
    assert (f"{path}: unfinished or damaged" in capsys.readouterr().err) == (damage != "gone")
    keep_json(path, {"a": 1})
    assert intact(path)


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "no digest"])
def test_a_damaged_folder_is_removed(tmp_path: Path, damage: str) -> None:
    with kept(tmp_path / "folder") as partial:
        (partial / "b").mkdir(parents=True)
        (partial / "b/c").write_text("xyz")
    DAMAGES[damage](tmp_path / "folder/b/c")
    assert not intact(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
