"""What a runtime answers with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.deploy.questions import Question


@dataclass(frozen=True)
class Setting:
    """The environment, the questions and the time of a runtime.

    Attributes:
        environment: the folder of its environment.
        python: the Python there.
        questions: to answer.
        questions_file: the same, as workers read them.
        work: folder for what the runtime makes of the checkpoint.
        seconds: the longest that a step may take.
    """

    environment: Path
    python: Path
    questions: Sequence[Question]
    questions_file: Path
    work: Path
    seconds: float
