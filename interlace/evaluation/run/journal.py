"""The journal of answers, from which a killed evaluation resumes.

A folder holds one file per process, with one line per batch: a digest, and JSON of request indices
and answers. Lines that are truncated or damaged are skipped, and their requests answered again.
The folder belongs to one checkpoint, one set of parameters and one version of the data; the caller
names it accordingly.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from interlace.system.outputs import refusals_named


class Journal:
    """Answers by request index, on disk.

    Args:
        folder: holds the files; None: nothing is saved.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def read(self) -> dict[int, str]:
        """Read the answers that all processes saved."""
        answers: dict[int, str] = {}
        for path in sorted(self.folder.glob("answers-*.jsonl")) if self.folder else ():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                digest, _, text = line.partition(" ")
                if digest == _digest(text):
                    answers |= {int(index): answer for index, answer in json.loads(text).items()}
        return answers

    def save(self, answers: Mapping[int, str], process: int) -> None:
        """Append a batch of answers; it is on disk when this returns.

        Raises:
            InputError: the disk is full.
        """
        if self.folder is None:
            return
        path, text = self.folder / f"answers-{process}.jsonl", json.dumps(answers)
        with refusals_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                # the last line of a killed process may be truncated
                file.write(f"\n{_digest(text)} {text}\n")
                file.flush()
                os.fsync(file.fileno())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
