"""An environment of its own for a runtime: made of pins, kept until they change."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from interlace.printable import one_line

PINS = Path(__file__).parent / "pins"
MARK = "pins.txt"  # in an environment that is whole: the pins that it was made of
QUOTED = 300  # characters of a last line


class CannotRun(Exception):
    """A runtime cannot be installed, or does not open a checkpoint; the message is one line."""


def pinned(name: str, package: str) -> str:
    """Return the version of a package in pins/NAME.txt, also where a comment names it."""
    text = (PINS / f"{name}.txt").read_text(encoding="utf-8")
    match = re.search(rf"(?:^|\s){re.escape(package)}==(\S+)", text)
    if match is None:
        raise ValueError(f"pins/{name}.txt does not pin {package}")
    return match[1]


def run_program(words: Sequence[str | Path], log: Path, seconds: float) -> str:
    """Run a program to its end; return its standard output.

    Args:
        words: the program and its arguments.
        log: file that gets all that it prints.
        seconds: the longest that it may take.

    Raises:
        CannotRun: it fails, with the last line that it printed, or takes longer.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [str(word) for word in words]
    try:
        program = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=max(seconds, 1)
        )
    except subprocess.TimeoutExpired:
        raise CannotRun(f"{Path(command[0]).name}: not done after {seconds:.0f} seconds") from None
    except OSError as error:
        raise CannotRun(f"{command[0]}: {error.strerror}") from None
    with log.open("a", encoding="utf-8") as lines:
        lines.write(f"$ {' '.join(command)}\n{program.stdout}{program.stderr}\n")
    if program.returncode:
        raise CannotRun(last_line(program.stderr or program.stdout))
    return program.stdout


def last_line(text: str) -> str:
    """Return the last line that holds words, as it may be shown."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return one_line(lines[-1][:QUOTED]) if lines else "it printed nothing"


def prepare(
    name: str, folder: Path, seconds: float, after: Callable[[Path, float], None] | None
) -> Path:
    """Make the environment of pins/NAME.txt unless it is there; return its Python.

    Args:
        name: of the pins.
        folder: for the environment.
        seconds: the longest that it may take.
        after: a further step, such as a build, on the folder.

    Raises:
        CannotRun: a package cannot be installed, or the step fails.
    """
    pins, mark = (PINS / f"{name}.txt").read_text(encoding="utf-8"), folder / MARK
    python = folder / "bin" / "python"
    if mark.exists() and mark.read_text(encoding="utf-8") == pins:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    log = folder.parent / f"{name}.log"
    run_program([sys.executable, "-m", "venv", folder], log, seconds)
    run_program([*_installer(python), "--no-deps", "-r", PINS / f"{name}.txt"], log, seconds)
    if after:
        after(folder, seconds)
    mark.write_text(pins, encoding="utf-8")
    return python


def _installer(python: Path) -> list[str | Path]:
    """Return the command that installs packages: uv where it is there, which links its cache."""
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--python", python]
    return [python, "-m", "pip", "install", "--quiet"]
