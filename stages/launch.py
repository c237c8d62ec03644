"""The command prefix `launch`, judged as the shell that DVC uses will run it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from interlace.errors import InputError
from interlace.system.distributed import world_size

STAGE = f"{__package__}.collect"  # DVC writes a stage's module after the prefix
_QUOTED = re.compile(r"\\.|'[^']*'|\"(?:\\.|[^\"\\])*\"")
_OPERATOR = re.compile(r"[;&|<>()`]")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=", re.ASCII)
_PYTHON = re.compile(r"(python|pypy)\d*(\.\d+)?")
_MODULE_OPTION = re.compile(r"-[bBdEhiIOPqRsSuvVx]*m")  # of Python, alone or after other flags
_LAUNCHERS = {  # program or module -> its options after which a module follows
    "torchrun": ("-m", "--module"),
    "torch.distributed.run": ("-m", "--module"),
    "interlace.system.torchrun": ("-m", "--module"),
    "torch.distributed.launch": ("-m", "--module"),
    "accelerate": ("-m", "--module"),
    "accelerate-launch": ("-m", "--module"),
    "accelerate.commands.launch": ("-m", "--module"),
    "deepspeed": ("--module",),
    "deepspeed.launcher.runner": ("--module",),
}


def check_program(launch: str) -> None:
    """Refuse a launch prefix that the shell cannot run, or that would not run a module.

    Raises:
        InputError: says why; or `pin` itself was launched as one of several processes.
    """
    if (processes := world_size()) > 1:
        raise InputError(
            f"WORLD_SIZE = {processes} in the environment: all stages would wait for other"
            " processes; unset WORLD_SIZE and RANK, launch sets them for the stages that it starts"
        )
    if reason := _complaint(launch):
        raise InputError(f"launch = {launch!r}: {reason}; the default is python -m")


def _complaint(launch: str) -> str | None:
    bare = _QUOTED.sub("", launch)
    if not launch.replace("\t", " ").isprintable():
        return "must be one line of plain characters, without a line break at its end"
    if "'" in bare or '"' in bare:
        return "a quote is not closed"
    if operator := _OPERATOR.search(bare):
        return f"holds {operator[0]!r}, must be one command; write the others to a script, name it"
    words = _expanded(launch)
    if isinstance(words, str):
        return words
    commands = _commands(words)
    if not commands:
        return "names no program"
    for program, path in commands:
        if shutil.which(program, path=path) is None:
            return f"no such program{_found_as(program)}"
    return _module_complaint(words)


def _expanded(launch: str) -> list[str] | str:
    """Return the words that the shell makes of a prefix, or why it makes none.

    Variables and `~` are expanded and quotes are removed, as in DVC's own call of the shell.
    """
    shell = os.environ.get("SHELL") or "/bin/sh"
    plain = ["--noprofile", "--norc"] if Path(shell).name == "bash" else []
    script = rf"printf '%s\0' {launch} {STAGE}"
    try:
        done = subprocess.run([shell, *plain, "-c", script], capture_output=True, check=False)
    except OSError as error:
        return f"the shell cannot be started: SHELL = {shell!r}: {error.strerror}"
    if done.returncode:
        return f"the shell refuses it: {' '.join(done.stderr.decode(errors='replace').split())}"
    words = done.stdout.decode(errors="surrogateescape").split("\0")[:-1]
    if words[-1:] != [STAGE]:
        return "its end swallows the name of the stage: remove the # or the backslash"
    return words[:-1]


def _commands(words: Sequence[str]) -> list[tuple[str, str | None]]:
    """Return the programs at the start of a command: `env` and the program it runs, or one.

    Each is given with the PATH to search, None for our own.
    """
    commands: list[tuple[str, str | None]] = []
    path = None
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if _ASSIGNMENT.match(word):
            path = word[5:] if word.startswith("PATH=") else path
        elif word in ("exec", "command", "time") and not commands:  # the shell's own words
            continue
        else:
            commands.append((word, path))
            if Path(word).name != "env":
                return commands
            while rest and rest[0].startswith("-"):
                option = rest.pop(0)
                if option in ("-u", "-C", "-S", "--unset", "--chdir"):
                    rest = rest[1:]
    return []


def _found_as(program: str) -> str:
    """Say what a file is that is no program."""
    if Path(program).is_dir():
        return f": {program} is a folder"
    if Path(program).is_file():
        return f": {program} is not executable; chmod +x {program}"
    return f": {program}"


def _module_complaint(words: Sequence[str]) -> str | None:
    """Say why the last launcher in a command would not run a module; None where it does."""
    names = [Path(word).name.removeprefix("-m") for word in words]
    launchers = [i for i, name in enumerate(names) if name in _LAUNCHERS or _PYTHON.fullmatch(name)]
    if not launchers:
        return None  # a program of the user's own
    name, rest = names[launchers[-1]], words[launchers[-1] + 1 :]
    if name not in _LAUNCHERS:
        return _python_complaint(name, rest)
    options = _LAUNCHERS[name]
    if name == "accelerate" and rest[:1] != ["launch"]:
        return "accelerate starts programs by `accelerate launch`"
    if not set(options) & set(rest) and not any(map(_is_script, rest)):
        return f"{name} would run a file named {STAGE}; end it with {options[0]}"
    return None


def _python_complaint(name: str, rest: Sequence[str]) -> str | None:
    """Say why Python would not run a module; None where it does."""
    words = iter(rest)
    for word in words:
        if _MODULE_OPTION.fullmatch(word):
            module = next(words, "")
            return f"-m {module} names no module" if module.startswith("-") else None
        if word in ("-W", "-X", "--check-hash-based-pycs"):
            next(words, None)
        elif word.startswith("-c"):
            return None
        elif not word.startswith("-"):
            return None if Path(word).exists() else f"no such script: {word}"
    return f"{name} would run a file named {STAGE}; end it with -m"


def _is_script(word: str) -> bool:
    path = Path(word)
    return path.is_file() and (path.suffix == ".py" or os.access(path, os.X_OK))
