"""A group of parameters: frozen, unknown keys refused; checked in one line."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from interlace.errors import InputError, validation_message

S = TypeVar("S", bound="Section")
MOST = 2**32 - 1  # of any number: the largest seed of NumPy; as a float32 it is finite


_NO_TEXT = re.compile("[\0\ud800-\udfff]")


class Section(BaseModel):
    """A frozen group of parameters that accepts no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_means_defaults(cls, values: Any) -> Any:
        return {} if values is None else values

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[str(info.field_name)].annotation
        if any(isinstance(item, bool) for item in _items(value)) and not _allows_bool(kind):
            raise ValueError("true and false are no values of this parameter")
        if isinstance(value, set | bytes):  # a set has no order
            raise ValueError("write a list or text, without a tag of YAML")
        return value

    @field_validator("*")
    @classmethod
    def _values_have_bounds(cls, value: Any) -> Any:
        for item in _items(value):
            if isinstance(item, str) and _NO_TEXT.search(item):
                raise ValueError("holds a character that no name of a file can")
            if isinstance(item, int | float) and abs(item) > MOST:
                raise ValueError(f"must be at most {MOST} in size")
        return value


def _items(value: Any) -> list[Any]:
    """Return the values of a list or a mapping, or the value alone."""
    if isinstance(value, list | tuple):
        return list(value)
    return list(value.values()) if isinstance(value, dict) else [value]


def _allows_bool(kind: Any) -> bool:
    """Tell if a type has bool in it, or is a section, which looks after its own fields."""
    if isinstance(kind, type) and issubclass(kind, bool | Section):
        return True
    return any(map(_allows_bool, get_args(kind)))


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
_KERNEL = re.compile(r"kernels-community/[\w.-]+(@[\w.-]+)?")
_ATTENTIONS = ("auto", "sdpa", "eager", *(f"flash_attention_{version}" for version in (2, 3, 4)))


def _attention(name: str) -> str:
    if name not in _ATTENTIONS and not _KERNEL.fullmatch(name):
        raise ValueError(f"must be one of {', '.join(_ATTENTIONS)}, or kernels-community/NAME")
    return name


Attention = Annotated[
    str,
    AfterValidator(_attention),
    Field(
        description="attention of transformers: sdpa, eager, flash_attention_2, _3, _4 (packages"
        " flash-attn, flash-attn-3, flash-attn-4), or kernels-community/NAME (package kernels);"
        " auto: an installed FlashAttention that fits, else the model's own choice",
    ),
]
Workers = Annotated[
    int | None,
    Field(
        ge=0,
        le=1024,
        exclude=True,  # no result depends on it: nothing is done again
        description="processes that open images ahead; none: 4 beside a GPU, else 0, since a model"
        " on the CPU takes the same cores",
    ),
]
Seed = Annotated[int, Field(0, ge=0, description="seed of every random draw")]


class ScoreParams(Section):
    """`score`: average the measurements."""
