"""Interlace's two exceptions; any other that is raised is a bug."""

import difflib
from collections.abc import Sequence

from pydantic import ValidationError


class InputError(Exception):
    """A user's mistake in a parameter, a file or a model.

    The message is one line that names the file, the field, the value and the way out.
    """


class ContractError(Exception):
    """A broken contract: of an earlier stage's artifact, or found by a check on our own work."""


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


def validation_message(where: str, error: ValidationError, known: Sequence[str] = ()) -> str:
    """Turn pydantic's report into one line: `params.yaml: ratio = 1.5: ...`.

    Args:
        where: the file or call the values came from.
        error: what pydantic raised.
        known: the keys that are allowed, with their sections; the nearest one to an unknown key is
            named.

    Returns:
        Every complaint, joined by semicolons.
    """
    complaints = []
    for item in error.errors(include_url=False):
        field = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            way = f"did you mean {nearest_key(field, known)}?" if known else "remove it"
            complaints.append(f"{field}: unknown key; {way}")
            continue
        reason = item["msg"].removeprefix("Value error, ")
        value = "" if isinstance(item["input"], dict) else f" = {item['input']!r}"
        complaints.append(f"{field}{value}: {reason}" if field else reason)
    return f"{where}: " + "; ".join(complaints)


def nearest_key(key: str, known: Sequence[str]) -> str:
    """Return the known key that is spelled most like another one, if possible with its last name.

    A parameter that moved to another section keeps its last name: `finetune.local_steps` is now
    `heal.local_steps`.
    """
    last = key.rpartition(".")[2]
    if last in known:
        return last
    moved = [name for name in known if name.rpartition(".")[2] == last]
    return difflib.get_close_matches(key, moved or known, n=1, cutoff=0)[0]
