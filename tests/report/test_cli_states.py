"""Every command of `interlace` in any state of a clone: a result, or one line with what to run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from report.test_write import make_workspace, report

from interlace.cli import main

COMMANDS = ("show", "compare", "methods", "methods --ratio 0.25", "push me/small --to out")


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory, pruned_dir: Path) -> Path:
    root = make_workspace(tmp_path_factory.mktemp("complete"))
    shutil.copytree(pruned_dir, root / "artifacts/tuned")
    report(root)
    return root


@pytest.fixture
def workspace(complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    shutil.copytree(complete, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    Path("dvc.yaml").touch()
    yield tmp_path / "w"


def check(command: str) -> None:
    """Run a command: it succeeds, or fails in one line with exit code 2."""
    result = CliRunner().invoke(main, command.split(), catch_exceptions=False)
    shutil.rmtree("out", ignore_errors=True)
    if result.exit_code:
        (line,) = result.stderr.splitlines()
        assert result.exit_code == 2 and line.startswith("error: ") and "dvc repro" in line


@pytest.mark.parametrize(
    "missing",
    [
        *("artifacts", "artifacts/plan.json", "artifacts/scores.parquet", "artifacts/report"),
        *("artifacts/pruned", "artifacts/tuned", "artifacts/evaluation", "artifacts/removals.json"),
        *("artifacts/evaluation/tuned.json", "artifacts/evaluation/answers/tuned.parquet"),
        *("artifacts/report/inputs.json", "artifacts/report/published.json", "metrics", "data"),
        *("artifacts/report/tuned.md", "metrics/summary.json", "metrics/ttft.json"),
    ],
)
def test_a_command_works_or_says_what_to_run_where_outputs_are_missing(
    workspace: Path, missing: str
) -> None:
    path = Path(missing)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    for command in COMMANDS:
        check(command)


@pytest.mark.parametrize(
    "file",
    [
        *("artifacts/plan.json", "artifacts/report/inputs.json", "artifacts/report/published.json"),
        *("artifacts/scores.parquet", "artifacts/evaluation/tuned.json", "metrics/summary.json"),
        *("artifacts/evaluation/answers/tuned.parquet", "artifacts/reference_plan.json"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"[1", b"\xff", b"[[1]]", b"{}"])
def test_a_damaged_file_is_one_line(workspace: Path, file: str, content: bytes) -> None:
    Path(file).write_bytes(content)
    for command in COMMANDS:
        result = CliRunner().invoke(main, command.split(), catch_exceptions=False)
        shutil.rmtree("out", ignore_errors=True)
        assert result.exit_code in (0, 2)
        assert len(result.stderr.splitlines()) <= 1


@pytest.mark.parametrize("columns", ["0", "1", "20", "999"])
def test_no_width_is_too_narrow(
    workspace: Path, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for command in COMMANDS[:-1]:
        assert CliRunner().invoke(main, command.split(), catch_exceptions=False).exit_code == 0
