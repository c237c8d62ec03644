"""Answers as they are made, so that a killed evaluation goes on where it was.

A folder holds one file for each process, with one line for each batch: the places of its prompts
and their answers, as JSON. The folder belongs to one checkpoint, one set of parameters and one
version of the data: its caller names it so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path


class Journal:
    """Answers by place.

    Args:
        folder: where they are kept; none: nowhere.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def read(self) -> dict[int, str]:
        """All answers that were saved, by any process; a line that was cut off is passed over."""
        found: dict[int, str] = {}
        for path in sorted(self.folder.glob("answers-*.jsonl")) if self.folder else ():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    batch = {int(place): str(answer) for place, answer in json.loads(line).items()}
                except (ValueError, AttributeError):
                    continue
                found |= batch
        return found

    def save(self, answers: Mapping[int, str], process: int) -> None:
        """Add a batch of answers; they are on disk when this returns."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"answers-{process}.jsonl").open("a", encoding="utf-8") as file:
            # what a killed process wrote last may lack its end
            file.write("\n" + json.dumps(answers, ensure_ascii=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
