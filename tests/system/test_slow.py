"""Slow work is named while it runs; other work is not."""

from __future__ import annotations

import time

import pytest

from interlace.system.slow import slow_named


def test_slow_work_is_named_while_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with slow_named("a.png", "remove it", 0.01):
        for _ in range(500):
            time.sleep(0.01)
            if error := capsys.readouterr().err:
                break
    assert error == "a.png: not read within 0.01 seconds; remove it\n"


def test_fast_work_is_not_named(capsys: pytest.CaptureFixture[str]) -> None:
    with slow_named("a.png", "remove it", 0.05):
        pass
    time.sleep(0.1)
    assert capsys.readouterr().err == ""
