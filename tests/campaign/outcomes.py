"""A try of the campaign, what was seen of it, and the one rule that judges it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["same", "accepted", "clear line", "traceback", "hang", "silent", "lost"]
OUTCOMES: tuple[Outcome, ...] = (
    *("same", "accepted", "clear line"),
    *("traceback", "hang", "silent", "lost"),
)
MISSED = "the run ended before the kill"
FAULTS: tuple[Outcome, ...] = ("traceback", "hang", "silent", "lost")


@dataclass(frozen=True)
class Try:
    """One try: what is done to what.

    Attributes:
        kind: a row of the table, e.g. `kill`.
        target: a stage, or a file.
        detail: all that is needed to do it again.
    """

    kind: str
    target: str
    detail: str

    @property
    def name(self) -> str:
        """The name that `--only` takes."""
        return f"{self.kind}/{self.target}/{self.detail}".replace(" ", "-")


@dataclass(frozen=True)
class Run:
    """A program that ended.

    Attributes:
        label: a stage or a command.
        code: its exit code; negative after a signal; `None` if it had to be ended.
        output: all that it printed.
    """

    label: str
    code: int | None
    output: str

    @property
    def error_lines(self) -> list[str]:
        """The lines in which it says why it gave up; DVC's own where it read no stage."""
        lines = re.split(r"[\r\n]+", self.output)
        ours = [line for line in lines if line.startswith(("error: ", "failed: ", "Error: "))]
        own = [
            line for line in lines if re.match(r"ERROR: .*dvc\.lock|.*dvc\.lock' is invalid", line)
        ]
        return ours or own

    @property
    def traceback(self) -> str:
        """The last line of a traceback; empty without one."""
        if "Traceback (most recent call last)" not in self.output:
            return ""
        lines = re.split(r"[\r\n]+", self.output.rpartition("Traceback (most recent")[2])
        return next((line for line in lines[1:] if re.match(r"\w[\w.]*(:|$)", line)), lines[-1])


@dataclass
class Evidence:
    """All that was seen of one try.

    Attributes:
        harmed: the runs with the fault, or on the changed input.
        after: the runs after it, without the fault.
        same: True if the outputs are those of an unharmed project; `None`: none were written.
        recorded: True if `pin` wrote down that the inputs are others.
        damage: True if no user can mean the change: a half file, a flipped byte in our own files.
        kept: False if a failed run changed or removed what was there before.
        names: words, one of which a clear line must hold.
    """

    harmed: list[Run] = field(default_factory=list)
    after: list[Run] = field(default_factory=list)
    same: bool | None = None
    recorded: bool = False
    damage: bool = False
    kept: bool = True
    names: Sequence[str] = ()
    killed: bool = False
    note: str = ""


@dataclass(frozen=True)
class Verdict:
    """The outcome of a try, and why."""

    outcome: Outcome
    reason: str
    vague: bool = False


def judge(seen: Evidence) -> Verdict:
    """Judge a try. The worst that was seen counts.

    - `hang`: a run had to be ended.
    - `traceback`: one was printed, or a run failed without a word of ours.
    - `lost`: a run without the fault failed afterwards, or an earlier result is gone.
    - `silent`: the result differs, and neither was the run refused nor are its inputs others by
      what `pin` recorded.
    - `accepted`: the changed input is another valid input, recorded as such.
    - `clear line`: refused in one line of ours.
    - `same`: the bytes of an unharmed run.
    """
    runs = [*seen.harmed, *seen.after]
    for run in runs:
        if run.code is None:
            return Verdict("hang", f"{run.label} did not end")
    for run in runs:
        if run.traceback:
            return Verdict("traceback", f"{run.label}: {run.traceback}"[:400])
    refused = [] if seen.killed else [run for run in seen.harmed if run.code]
    for run in refused:
        if run.code not in (1, 2, 255) or not run.error_lines:
            return Verdict("traceback", f"{run.label}: code {run.code} without a line of ours")
    if not seen.kept:
        return Verdict("lost", f"an earlier result is gone or changed{_why(refused)}")
    for run in seen.after:
        if run.code:
            return Verdict("lost", f"{run.label} fails afterwards{_why([run])}"[:400])
    if (seen.same is False and not refused) or (seen.after and not seen.same):
        legitimate = seen.recorded and not seen.damage and not seen.after
        return Verdict("accepted" if legitimate else "silent", seen.note or "other results")
    if refused:
        line = refused[0].error_lines[-1]
        vague = bool(seen.names) and not any(name in line for name in seen.names)
        many = len(refused[0].error_lines) > 1
        return Verdict("clear line", f"{refused[0].label}: {line}"[:400], vague or many)
    return Verdict("same", seen.note)


def _why(runs: Sequence[Run]) -> str:
    lines = [line for run in runs for line in run.error_lines or run.output.split("\n")[-3:]]
    return f": {' | '.join(lines)}" if lines else ""
