"""The processes of a study."""

import time

import pytest

from studies.processes import open_processes


def test_an_error_ends_a_study_before_all_waiting_work_is_done() -> None:
    with pytest.raises(ValueError, match="no page"), open_processes(1) as pool:
        work = [pool.submit(time.sleep, 0.2) for _ in range(20)]
        raise ValueError("no page")
    assert work[-1].cancelled()
