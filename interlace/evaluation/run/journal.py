"""The journal of answers, from which a killed evaluation resumes.

A folder holds one file per process, with one line of JSON per batch: request indices and answers.
The folder belongs to one checkpoint, one set of parameters and one version of the data; the caller
names it accordingly.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path


class Journal:
    """Answers by request index, on disk.

    Args:
        folder: holds the files; None: nothing is saved.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def read(self) -> dict[int, str]:
        """Read the answers that all processes saved; skip a truncated line."""
        answers: dict[int, str] = {}
        for path in sorted(self.folder.glob("answers-*.jsonl")) if self.folder else ():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    batch = {int(index): str(answer) for index, answer in json.loads(line).items()}
                except (ValueError, AttributeError):
                    continue
                answers |= batch
        return answers

    def save(self, answers: Mapping[int, str], process: int) -> None:
        """Append a batch of answers; it is on disk when this returns."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"answers-{process}.jsonl").open("a", encoding="utf-8") as file:
            # the last line of a killed process may be truncated
            file.write("\n" + json.dumps(answers, ensure_ascii=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
