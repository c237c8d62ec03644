"""Ctrl-C and SIGTERM end a process with one line, with its children and temporary files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORK = """
import multiprocessing, sys, time
from pathlib import Path
from interlace.system import interruption
from interlace.system.outputs import whole

def work():
    time.sleep(60)

if __name__ == "__main__":
    interruption.install()
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    with whole(Path(sys.argv[1])) as partial:
        partial.touch()
        print(child.pid, flush=True)
        try:
            time.sleep(60)
        except BaseException:  # as libraries do
            time.sleep(60)
"""


STUCK = WORK.replace(  # the signal goes to another thread, and interrupts no call of this one
    "    interruption.install()\n",
    "    interruption.install()\n"
    "    import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n",
)


FORKED = """
import os, signal, sys, time
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
from pathlib import Path
from interlace.system import interruption
from interlace.system.outputs import whole

interruption.install()
with whole(Path(sys.argv[1])) as partial:
    partial.touch()
    child = os.fork()
    if child == 0:
        time.sleep(60)
    status = os.waitpid(child, 0)[1]
    print(os.waitstatus_to_exitcode(status), partial.exists())
"""


def _heed_ctrl_c() -> None:
    """Undo what a shell does to a command in the background: it ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def end(folder: Path, number: int, times: int = 1, work: str = WORK) -> tuple[int, str, int]:
    """Interrupt a process at work; return its exit code, its words and its child's number."""
    command = [sys.executable, "-c", work, str(folder / "out.json")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        command, **pipes, start_new_session=True, preexec_fn=_heed_ctrl_c
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        for _ in range(times):
            os.killpg(process.pid, number)
        words = process.communicate(timeout=30)[1]
    return process.returncode, words, child


@pytest.mark.parametrize(
    ("number", "word", "code"),
    [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "told to end", 143)],
    ids=["ctrl-c", "terminated"],
)
@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_ends_a_process_with_one_line(
    tmp_path: Path, number: int, word: str, code: int, times: int
) -> None:
    exit_code, words, child = end(tmp_path, number, times)
    assert exit_code == code
    if times == 1:
        assert words.strip() == f"{word}: finished work is kept; the same command resumes"
        assert list(tmp_path.iterdir()) == []
    assert "Traceback" not in words
    with pytest.raises(ProcessLookupError):  # it is gone too
        for _ in range(100):
            os.kill(child, 0)
            time.sleep(0.1)


def test_a_main_thread_that_does_not_come_back_leaves_no_child_and_no_file(tmp_path: Path) -> None:
    code, words, child = end(tmp_path, signal.SIGTERM, work=STUCK)
    assert code == 143
    assert words.strip() == "told to end: finished work is kept; the same command resumes"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(child, 0)
            time.sleep(0.1)


def test_a_child_that_ends_while_it_is_forked_leaves_its_parent_s_work(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKED, str(tmp_path / "out.json")]
    process = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (process.stdout, process.stderr) == ("143 True\n", "")


def test_importing_a_stage_is_interrupted_without_a_traceback() -> None:
    command = [sys.executable, "-m", "stages.score", "--help"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        process.send_signal(signal.SIGTERM)
        words = process.communicate(timeout=30)[1]
    assert "Traceback" not in words
