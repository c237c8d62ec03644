"""Start a project: a folder that `dvc repro` runs in, written whole or not at all."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from interlace.errors import InputError, complaint
from interlace.project.layout import JOINED, PIPELINE, SPARED
from interlace.system.outputs import refusals_named, remove, whole

EXTRAS = (  # modules of `interlace-vlm[pipeline]`
    *("dvc", "accelerate", "datasets", "lmms_eval", "openai", "peft", "psutil"),
    *(("deepspeed",) if sys.platform == "linux" else ()),
)
Files = Mapping[Path, bytes | Path]


def check_programs() -> None:
    """Refuse to start a project that could not run.

    Raises:
        InputError: git, or a package of the pipeline is not installed.
    """
    if missing := [name for name in EXTRAS if importlib.util.find_spec(name) is None]:
        raise InputError(
            f"{', '.join(missing)}: not installed; run: pip install 'interlace-vlm[pipeline]'"
        )
    if shutil.which("git") is None:
        raise InputError("git: no such program; install git, in which DVC keeps experiments")


def check_folder(folder: Path, files: Files) -> None:
    """Refuse a folder that holds a project, or some file that one would replace.

    Raises:
        InputError: names the file and the way out.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file where the project's folder should be; name another")
    if os.path.lexists(folder / PIPELINE):
        raise InputError(
            f"{folder / PIPELINE}: a pipeline is there already; `interlace upgrade` compares it"
            " with the installed one; or name another folder"
        )
    for path in files:
        if path not in (*JOINED, *SPARED) and os.path.lexists(folder / path):
            raise InputError(f"{folder / path}: is there already; move it, or name another folder")


def start_project(folder: Path, files: Files) -> None:
    """Write a project, and make its folder a git repository where it lies in none.

    Raises:
        InputError: git or the file system refuses it; nothing is written.
    """
    repository = _repository(folder)
    if repository is None and not folder.exists():
        with whole(folder) as partial:
            _write(files, partial)
            _git("init", "--quiet", folder=partial)
        return
    with refusals_named(), _undone_on_failure(folder) as new_paths:
        folder.mkdir(parents=True, exist_ok=True)
        if repository is None:
            new_paths += [folder / ".git"] if not os.path.lexists(folder / ".git") else []
            _git("init", "--quiet", folder=folder)
        with tempfile.TemporaryDirectory(prefix=".interlace.", dir=folder) as staging:
            _write({path: files[path] for path in _missing(folder, files)}, Path(staging))
            for path in _missing(folder, files):
                _move(Path(staging), folder, path, new_paths)
        _join(folder, files)


def _repository(folder: Path) -> Path | None:
    """Return the git repository that a folder lies in.

    Raises:
        InputError: git fails, or it would ignore the project.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    done = _run_git("rev-parse", "--show-toplevel", folder=nearest)
    if done.returncode:
        if "not a git repository" in done.stderr:
            return None
        raise InputError(f"{nearest}: git refuses it: {' '.join(done.stderr.split())}")
    root = Path(done.stdout.rstrip("\n"))
    pipeline = str(folder.absolute() / PIPELINE)
    if _run_git("check-ignore", "--quiet", pipeline, folder=nearest).returncode == 0:
        raise InputError(
            f"{folder}: the git repository {root} ignores it; name another folder, or change its"
            " .gitignore"
        )
    return root


def _run_git(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LC_ALL": "C"}
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *words], env=environment, capture_output=True, text=True
        )
    except OSError as error:
        raise InputError(f"git: cannot be run: {complaint(error)}") from None


def _git(*words: str, folder: Path) -> None:
    done = _run_git(*words, folder=folder)
    if done.returncode:
        raise InputError(f"{folder}: git {words[0]} failed: {' '.join(done.stderr.split())}")


def _write(files: Files, folder: Path) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, folder / path)
        else:
            (folder / path).write_bytes(content)


def _missing(folder: Path, files: Files) -> list[Path]:
    return [path for path in files if not os.path.lexists(folder / path)]


def _move(staging: Path, folder: Path, path: Path, new_paths: list[Path]) -> None:
    """Move a file to its place, and note it and the folders that were made for it."""
    for parent in reversed((folder / path).relative_to(folder).parents[:-1]):
        if not (folder / parent).exists():
            new_paths.append(folder / parent)
            (folder / parent).mkdir()
    new_paths.append(folder / path)
    os.replace(staging / path, folder / path)


def _join(folder: Path, files: Files) -> None:
    """Add the project's lines to files of lines that were there before."""
    for path in JOINED:
        text, lines = (folder / path).read_text(encoding="utf-8"), files[path]
        assert isinstance(lines, bytes)
        missing = [line for line in lines.decode().splitlines() if line not in text.splitlines()]
        if missing:
            with whole(folder / path) as partial:
                end = "" if text.endswith("\n") or not text else "\n"
                partial.write_text(f"{text}{end}{chr(10).join(missing)}\n", encoding="utf-8")


@contextmanager
def _undone_on_failure(folder: Path) -> Iterator[list[Path]]:
    """Yield a list for new paths; remove them, and the folder if it is new, on failure."""
    new_paths = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    new_paths.reverse()
    try:
        yield new_paths
    except BaseException:
        for path in reversed(new_paths):
            remove(path)
        raise
