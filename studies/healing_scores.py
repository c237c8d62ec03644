"""The scores of the study of healing: one per healed model, kept in a CSV file."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

STEPS = 32  # updates of a run


@dataclass(frozen=True)
class Run:
    """One healed model; variant `pruned` is not healed.

    Attributes:
        steps: updates, local and end-to-end together.
        rate: peak learning rate; of local healing for purely local variants.
        local_rate: of local healing in mixed variants.
    """

    method: str
    ratio: float
    seed: int
    variant: str
    steps: int = STEPS
    rate: float = 0.0
    local_rate: float = 0.0


@dataclass(frozen=True)
class HealedScore:
    """Scores of a run in percent: on the held-out file, and on training rows kept out of it."""

    heldout: float
    training_mix: float


class Results:
    """The rows of a CSV file: one per finished run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scores: dict[Run, HealedScore] = {}
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    kinds = {
                        f.name: type(getattr(Run("", 0.0, 0, ""), f.name)) for f in fields(Run)
                    }
                    run = Run(**{name: kind(row[name]) for name, kind in kinds.items()})
                    self.scores[run] = HealedScore(
                        float(row["heldout"]), float(row["training_mix"])
                    )

    def add(self, run: Run, score: HealedScore) -> None:
        """Append a row to the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        row = asdict(run) | asdict(score)
        is_new = not self.path.is_file()
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerow(row)
        self.scores[run] = score
