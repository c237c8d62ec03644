"""The call `interlace.draw`: figures of a run as a notebook shows them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from interlace.errors import InputError
from interlace.evaluation.scores.result import Evaluation
from interlace.plan.record import Plan
from interlace.report.figures.layer_map import layer_map_figure
from interlace.report.figures.profile import profile_figure
from interlace.report.figures.retention import retention_figure
from interlace.report.figures.training import loss_figure
from interlace.system.outputs import whole


@dataclass(frozen=True)
class NotebookFigure:
    """A figure; a notebook shows it by itself."""

    png: bytes = field(repr=False)

    def _repr_png_(self) -> bytes:
        return self.png

    def save(self, path: Path | str) -> None:
        """Write it to a PNG file.

        Raises:
            InputError: the file system refuses it.
        """
        with whole(Path(path)) as partial:
            partial.write_bytes(self.png)


def draw(subject: Plan | pa.Table | Mapping[str, Evaluation] | Path | str) -> NotebookFigure:
    """Draw what a call returned.

    Args:
        subject: a plan: the role of each layer; the table of `measure`: similarity over depth;
            evaluations of `dense`, `pruned` and `tuned` by these names: scores; the file that
            `heal` wrote its curve to: the loss.

    Raises:
        InputError: nothing that can be drawn; names its type.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figure.png"
        if isinstance(subject, Plan):
            layer_map_figure(subject, path)
        elif isinstance(subject, pa.Table):
            profile_figure(subject, path)
        elif isinstance(subject, Mapping) and {"dense", "pruned", "tuned"} <= subject.keys():
            retention_figure(subject, path)
        elif isinstance(subject, Path | str):
            loss_figure(subject, path)
        else:
            raise InputError(
                f"draw: a {type(subject).__name__} has no figure; pass a plan, a score table, the"
                " evaluations of dense, pruned and tuned, or the file of a loss curve"
            )
        return NotebookFigure(path.read_bytes())
