"""The journal of replies, from which a killed evaluation resumes.

A folder holds one file per process, with one line per batch: a digest, and JSON of request indices
and replies. Lines that are truncated or damaged are skipped, and their requests answered again.
The folder belongs to one checkpoint, one set of parameters and one version of the data; the caller
names it accordingly.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from interlace.system.outputs import refusals_named


@dataclass(frozen=True)
class Reply:
    """A model's reply to one request.

    Attributes:
        text: the generated answer; empty where nothing is generated.
        loss: sum of the cross-entropies of the true answer's tokens, nats; None without one.
        tokens: the true answer's tokens.
        choices: the model's first choice in place of each, given the true text before it.
        missing: True if there is no answer, as a server failed; it is asked again by the next run.
    """

    text: str
    loss: float | None = None
    tokens: tuple[int, ...] = ()
    choices: tuple[int, ...] = ()
    missing: bool = False

    @property
    def accuracy(self) -> float:
        """The share of the true answer's tokens that are the model's first choice, 0 to 1."""
        pairs = zip(self.tokens, self.choices, strict=True)
        return sum(token == choice for token, choice in pairs) / len(self.tokens)


class Journal:
    """Replies by request index, on disk.

    Args:
        folder: holds the files; None: nothing is saved.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def read(self) -> dict[int, Reply]:
        """Read the replies that all processes saved."""
        replies: dict[int, Reply] = {}
        for path in sorted(self.folder.glob("answers-*.jsonl")) if self.folder else ():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                digest, _, text = line.partition(" ")
                if digest == _digest(text):
                    replies |= {index: _reply(*values) for index, values in json.loads(text)}
        return replies

    def save(self, replies: Mapping[int, Reply], process: int) -> None:
        """Append a batch of replies, but those that are missing; on disk when this returns.

        Raises:
            InputError: the disk is full.
        """
        replies = {index: reply for index, reply in replies.items() if not reply.missing}
        if self.folder is None or not replies:
            return
        path = self.folder / f"answers-{process}.jsonl"
        text = json.dumps([(index, astuple(reply)[:4]) for index, reply in replies.items()])
        with refusals_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                # the last line of a killed process may be truncated
                file.write(f"\n{_digest(text)} {text}\n")
                file.flush()
                os.fsync(file.fileno())


def _reply(text: str, loss: float | None, tokens: Sequence[int], choices: Sequence[int]) -> Reply:
    return Reply(text, loss, tuple(tokens), tuple(choices))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
