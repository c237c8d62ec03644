"""The table of removals: the layers that each method would remove, beside the plan."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError

from interlace.errors import InputError, validation_message


class PaperRule(BaseModel, frozen=True, extra="forbid"):
    """A method's own rules, as its paper has them.

    Attributes:
        needs: criteria that it reads from the score table.
        protect_first: leading layers that it never drops.
        protect_last: trailing layers that it never drops.
    """

    needs: tuple[str, ...] = ()
    protect_first: int = 0
    protect_last: int = 0


class Removal(BaseModel, frozen=True, extra="forbid"):
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


class Removals(BaseModel, frozen=True, extra="forbid"):
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
    try:
        return Removals.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run `dvc repro select`") from None
    except ValidationError as error:
        raise InputError(validation_message(str(path), error)) from None
