"""The table of removals: the layers that each method would remove, beside the plan."""

from __future__ import annotations

from pathlib import Path

from interlace.plan.record import Record
from interlace.system.documents import read_record


class PaperRule(Record):
    """A method's own rules, as its paper has them.

    Attributes:
        needs: criteria that it reads from the score table.
    """

    needs: tuple[str, ...] = ()


class Removal(Record):
    """The layers that one method would remove at one ratio.

    Attributes:
        ratio: share of the layers, as the method's paper counts them.
        n_layers: of the dense decoder.
        anchors: layers kept frozen after a triplet's other two.
        reason: why the method cannot choose; empty where it can.
    """

    method: str
    ratio: float
    n_layers: int
    drop: tuple[int, ...] = ()
    tune: tuple[int, ...] = ()
    anchors: tuple[int, ...] = ()
    protected: tuple[int, ...] = ()
    reason: str = ""


class Removals(Record):
    """Contents of `artifacts/removals.json`.

    Attributes:
        rule: of the method that the plan was made by.
        removals: by method, then by ratio.
    """

    rule: PaperRule
    removals: tuple[Removal, ...]


def read_removals(path: Path) -> Removals:
    """Read and check a table of removals.

    Raises:
        InputError: the file is missing, or holds something else.
    """
    removals: Removals = read_record(path, Removals)
    return removals
