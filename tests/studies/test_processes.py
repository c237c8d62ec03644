"""The processes of a study."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studies.processes import open_processes

STUDY = """
import os, time
from studies.processes import open_processes

if __name__ == "__main__":
    with open_processes(1, print, ("ready",)) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""


def test_an_error_ends_a_study_before_all_waiting_work_is_done() -> None:
    with pytest.raises(ValueError, match="no page"), open_processes(1) as pool:
        work = [pool.submit(time.sleep, 0.2) for _ in range(20)]
        raise ValueError("no page")
    assert work[-1].cancelled()


def test_a_killed_study_leaves_no_process_at_work(tmp_path: Path) -> None:
    script = tmp_path / "study.py"
    script.write_text(STUDY)
    study = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert study.stdout is not None
    words = [study.stdout.readline().strip() for _ in range(2)]
    worker = int(words[1])
    assert words[0] == "ready" and is_alive(worker)
    study.send_signal(signal.SIGKILL)
    study.wait()
    study.stdout.close()
    deadline = time.monotonic() + 60
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(worker)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
