"""Interlace's two exceptions; any other that is raised is a bug."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from interlace.printable import one_line

SERVED = ("url", "model", "key_variable")  # may hold an address with a password, or a key
SECRETS = ("evaluate.judge", *(f"answers.endpoint.{name}" for name in SERVED))
_SHORTENED = reprlib.Repr()
_SHORTENED.maxstring = _SHORTENED.maxother = 200


class InputError(Exception):
    """A user's mistake in a parameter, a file or a model.

    The message is one line that names the file, the field, the value and the way out; control
    characters and newlines of the value are escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class MissingInputError(InputError):
    """A file that an earlier step writes is missing, or does not hold what it should.

    Attributes:
        path: the file or folder.
    """

    def __init__(self, path: Path, problem: str = "no such file") -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path

    @classmethod
    def invalid(cls, path: Path, error: ValidationError) -> MissingInputError:
        """Return the error of a file whose values break its schema."""
        return cls(path, validation_message("", error).removeprefix(": "))


class ContractError(Exception):
    """A broken contract: of an earlier stage's artifact, or found by a check on our own work."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def complaint(error: BaseException) -> str:
    """Return what a library says in one line, or the kind of the error where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def way_to_finite(dtype: str, field: str) -> str:
    """Return the way out where a number is not finite.

    Args:
        dtype: of the computation, e.g. float16.
        field: the parameter that sets the type.
    """
    if dtype == "float32":
        return "the weights or the sample are damaged: copy the model again, or repair the data"
    wider = "float32 or bfloat16" if dtype == "float16" else "float32"
    return f"set {field} to {wider}"


def validation_message(where: str, error: ValidationError, keys: Sequence[str] = ()) -> str:
    """Turn pydantic's report into one line: `params.yaml: ratio = 1.5: ...`.

    Args:
        where: the file or call that gave the values.
        error: of pydantic.
        keys: that are allowed, with their sections; an unknown key is answered with a near one.

    Returns:
        All complaints, joined by semicolons.
    """
    complaints = []
    for item in error.errors(include_url=False):
        field = ".".join(map(str, item["loc"]))
        if item["type"] == "extra_forbidden":
            hint = did_you_mean(nearest_key(field, keys)).rstrip() or "remove it"
            complaints.append(f"{field}: unknown key; {hint}")
            continue
        reason = item["msg"].removeprefix("Value error, ")
        if item["type"] == "string_type":
            reason += ", in quotes"
        hidden = isinstance(item["input"], dict) or field.startswith(SECRETS)
        value = "" if hidden else f" = {shown(item['input'])}"
        complaints.append(f"{field}{value}: {reason}" if field else reason)
    return f"{where}: " + "; ".join(complaints)


def shown(value: Any) -> str:
    """Write a value of a file for a message; long ones are cut."""
    try:
        return _SHORTENED.repr(value)
    except ValueError:  # an integer of more digits than Python writes out
        return f"a number of {int(value).bit_length()} bits"


def nearest_key(key: str, keys: Sequence[str]) -> str | None:
    """Return the key among `keys` that is spelled most like `key`; `None` if none is near.

    One with the same last name comes first, since a parameter that moves to another section keeps
    it: `finetune.local_steps` is now `heal.local_steps`.
    """
    last = key.rpartition(".")[2]
    if last in keys:
        return last
    moved = [name for name in keys if name.rpartition(".")[2] == last]
    return nearest_name(key, moved) or nearest_name(key, keys)


def nearest_name(name: str, names: Iterable[str]) -> str | None:
    """Return the name among `names` that `name` may be a slip or a part of; `None` without one."""
    names = list(names)
    near = difflib.get_close_matches(name, names, n=1)
    parts = [longer for longer in names if len(name) > 3 and name in longer]
    return next(iter([*near, *parts]), None)


def did_you_mean(name: str | None) -> str:
    """Ask for a near name, with a space at the end; nothing without one."""
    return f"did you mean {name}? " if name else ""
