"""A group of parameters: frozen, unknown keys refused; checked in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from interlace.errors import InputError, validation_message

S = TypeVar("S", bound="Section")


class Section(BaseModel):
    """A frozen group of parameters that accepts no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _empty_means_defaults(cls, values: Any) -> Any:
        return {} if values is None else values


def read_yaml(path: Path) -> Any:
    """Read a parameter file.

    Raises:
        InputError: the file is missing or is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; copy params.yaml or one from profiles/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable text file ({error})") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None


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
        raise InputError(validation_message(where, error, leaf_names(model))) from None


def leaf_names(model: type[Section], prefix: str = "") -> list[str]:
    """Return the parameters of a section as users write them, such as `export.dtype`."""
    names = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            names += leaf_names(kind, f"{prefix}{name}.")
        else:
            names.append(f"{prefix}{name}")
    return names


def merged(model: type[S], *sections: Section, **values: Any) -> S:
    """Build the options of one computation from several sections and single values."""
    fields = {name: value for section in sections for name, value in section}
    return model.model_validate(fields | values)


Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    Field(
        "auto",
        description="type to compute in; auto: bfloat16 on a GPU, float32 on a CPU; float16 does"
        " not hold for fine-tuning, which then computes in float32",
    ),
]
Seed = Annotated[int, Field(0, ge=0, description="seed of every random draw")]


class ScoreParams(Section):
    """`score`: average the measurements."""
