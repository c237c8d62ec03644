"""The command prefix is judged as the shell will run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from interlace.errors import InputError
from stages.launch import check_program


@pytest.fixture(autouse=True, params=["/bin/sh", "/bin/bash"])
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A home with programs in its folder bin, one of which is on the PATH."""
    for name in ("bin/torchrun", "bin/deepspeed", "bin/accelerate", "bin/my launcher", "bin/srun"):
        program = tmp_path / name
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    (tmp_path / "launch.py").touch()
    (tmp_path / "plain.sh").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TOOLS", str(tmp_path / "bin"))
    monkeypatch.setenv("LAUNCHER", "torchrun --nproc-per-node 2")
    python = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{python}:/usr/bin:/bin")
    monkeypatch.setenv("SHELL", request.param)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "launch",
    [
        "python -m",
        "python -m ",
        "  python -u -m",
        "python -um",
        "python3 -W ignore -X dev -m",
        "python launch.py",
        "python -m mine.launcher",
        "CUDA_VISIBLE_DEVICES=0 python -m",
        "A=1 B='two words' C=\"$HOME; x\" D= python -m",
        "PATH=/nowhere:$PATH python -m",
        "env CUDA_VISIBLE_DEVICES=0 python -m",
        "A=1 env -i -u HOME B=2 python -m",
        "/usr/bin/env python -m",
        "exec python -m",
        "~/bin/torchrun -m",
        "$HOME/bin/torchrun -m",
        "${TOOLS}/torchrun -m",
        "$LAUNCHER -m",
        "bin/torchrun --module",
        "./bin/torchrun --nproc-per-node 2 -m",
        "torchrun -m --nproc-per-node 2",
        "torchrun launch.py",
        "torchrun --no-python python -m",
        "python -m torch.distributed.run --nproc-per-node 2 -m",
        "deepspeed --num_gpus 2 --module",
        "accelerate launch --num_processes 2 -m",
        "accelerate launch --module",
        "'bin/my launcher'",
        r"bin/my\ launcher",
        "srun --ntasks 2 python -m",
    ],
)
def test_a_prefix_that_runs_a_module_is_accepted(launch: str) -> None:
    check_program(launch)


@pytest.mark.parametrize(
    ("launch", "reason"),
    [
        ("", "names no program"),
        ("python -m\n", "must be one line"),
        ("python\n-m", "must be one line"),
        (" ", "names no program"),
        ("A=1", "names no program"),
        ("env A=1", "names no program"),
        ("torchrn -m", "no such program: torchrn"),
        ("A=1 torchrn -m", "no such program: torchrn"),
        ("env A=1 torchrn -m", "no such program: torchrn"),
        ("PATH=/nowhere torchrun -m", "no such program: torchrun"),
        ("'~/bin/torchrun' -m", "no such program: ~/bin/torchrun"),
        ("~/bin/none -m", "no such program: "),
        ("'CUDA_VISIBLE_DEVICES=0 python' -m", "no such program: -m"),
        ("python\0 -m", "must be one line"),
        ("./plain.sh", "not executable; chmod +x ./plain.sh"),
        ("bin", "no such program: bin is a folder"),
        ("python", "end it with -m"),
        ("python3 -u", "end it with -m"),
        ("python none.py", "no such script: none.py"),
        ("python -m --module", "-m --module names no module"),
        ("torchrun", "end it with -m"),
        ("torchrun --nproc-per-node=2", "end it with -m"),
        ("~/bin/torchrun --nproc-per-node=2", "end it with -m"),
        ("$LAUNCHER", "end it with -m"),
        ("python -m torch.distributed.run --nproc-per-node 2", "end it with -m"),
        ("python -mtorch.distributed.run --nproc-per-node 2", "end it with -m"),
        ("deepspeed --num_gpus 2", "end it with --module"),
        ("deepspeed --num_gpus 2 -m", "end it with --module"),
        ("accelerate launch", "end it with -m"),
        ("accelerate -m", "by `accelerate launch`"),
        ("srun --ntasks 2 python", "end it with -m"),
        ("python -m 'x", "a quote is not closed"),
        ('python -m "x', "a quote is not closed"),
        ("python -m # mine", "swallows the name of the stage"),
        ("python -m \\", "swallows the name of the stage"),
        (". bin/env.sh && python -m", "holds '&', must be one command"),
        ("cd bin; python -m", "holds ';', must be one command"),
        ("yes | python -m", "holds '|', must be one command"),
        ("python -m > log", "holds '>', must be one command"),
        ("$(which python) -m", "holds '(', must be one command"),
        ("`which python` -m", "must be one command"),
        ("python -m ${", "the shell refuses it"),
    ],
)
def test_a_prefix_that_runs_no_module_is_refused_in_one_line(launch: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        check_program(launch)
    message = str(caught.value)
    assert message.startswith(f"launch = {launch!r}: ")
    assert reason in message
    assert "\n" not in message


def test_a_shell_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/nowhere/sh")
    with pytest.raises(InputError, match="SHELL = '/nowhere/sh': No such file"):
        check_program("python -m")


def test_the_shell_runs_what_was_accepted(folder: Path) -> None:
    (folder / "stages").mkdir()
    (folder / "stages/__init__.py").touch()
    (folder / "stages/collect.py").write_text("import os; print(os.environ['A'])")
    check_program("A='two words' python -m")
    command = "A='two words' python -m stages.collect"
    done = subprocess.run([os.environ["SHELL"], "-c", command], capture_output=True, check=True)
    assert done.stdout == b"two words\n"


def test_variables_of_another_launch_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "")
    check_program("python -m")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"WORLD_SIZE = 2 in the environment: .* unset"):
        check_program("python -m")
