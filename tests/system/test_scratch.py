"""The folder for unfinished work has sizes, and is emptied around running stages."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from click.testing import CliRunner

from interlace import cli
from interlace.system.locks import locked
from interlace.system.scratch import REPLIES, WORK, clear_scratch, scratch_entries

ROOT = Path(__file__).parents[2]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("finetune/aa", "finetune/bb", "pin", "judged", "study"):
        (tmp_path / ".scratch" / name).mkdir(parents=True)
        (tmp_path / ".scratch" / name / "file").write_bytes(bytes(100_000))
    return tmp_path / ".scratch"


def left(scratch: Path) -> set[str]:
    return {path.parent.relative_to(scratch).as_posix() for path in scratch.rglob("file")}


def test_work_and_caches_go_and_replies_and_foreign_folders_stay(scratch: Path) -> None:
    removed = {entry.name: entry.size for entry in clear_scratch(scratch)}
    assert left(scratch) == {"judged", "study"}
    assert removed.keys() == {"finetune", "pin"}
    assert 200_000 <= removed["finetune"] < 250_000


def test_replies_go_where_they_are_named(scratch: Path) -> None:
    clear_scratch(scratch, replies=True)
    assert left(scratch) == {"study"}


def test_a_running_stage_keeps_its_work_and_the_caches(scratch: Path) -> None:
    with locked(scratch / "locks/folder", print), locked(scratch / "finetune/bb.lock", print):
        holders = {entry.name: len(entry.holders) for entry in scratch_entries(scratch)}
        clear_scratch(scratch, replies=True)
    assert holders == {"finetune": 1, "pin": 1, "judged": 1, "study": 0}
    assert left(scratch) == {"finetune/bb", "pin", "judged", "study"}


def test_the_command_shows_sizes_and_users(scratch: Path) -> None:
    with locked(scratch / "finetune/bb.lock", print):
        shown = CliRunner().invoke(cli.main, ["scratch", "--clear"]).output
    assert ".scratch/pin: removed " in shown
    assert "in use: process" in " ".join(shown.split())
    assert "not the pipeline's" in shown
    assert left(scratch) == {"finetune/bb", "judged", "study"}


def test_replies_alone_are_no_reason_to_remove_anything(scratch: Path) -> None:
    assert CliRunner().invoke(cli.main, ["scratch", "--replies"]).exit_code == 2
    assert len(left(scratch)) == 5


def test_every_folder_that_a_stage_names_is_known() -> None:
    names = {"scratch_folder": set[str](), "kept_folder": set[str]()}
    for file in (ROOT / "stages").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                first = node.args[0]
                if node.func.id in names and isinstance(first, ast.Constant):
                    names[node.func.id].add(str(first.value))
    assert names["scratch_folder"] == set(WORK)
    assert names["kept_folder"] <= set(REPLIES)
