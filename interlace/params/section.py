"""A group of parameters: frozen, unknown keys refused; checked in one line."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from interlace.errors import InputError, validation_message

S = TypeVar("S", bound="Section")


class Section(BaseModel):
    """A frozen group of parameters that accepts no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def validated(model: type[S], values: Any, where: str) -> S:
    """Check plain values against a parameter model.

    Raises:
        InputError: one line with every wrong field, its value and the reason.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected keys and values, found {type(values).__name__}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(validation_message(where, error)) from None


Seed = Annotated[int, Field(0, ge=0, description="seed of every random draw")]


class ScoreParams(Section):
    """`score`: average the measurements."""
