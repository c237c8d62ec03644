"""Interlace's two exceptions; any other that is raised is a bug."""

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


def validation_message(where: str, error: ValidationError) -> str:
    """Turn pydantic's report into one line: `params.yaml: ratio = 1.5: ...`.

    Args:
        where: the file or call the values came from.
        error: what pydantic raised.

    Returns:
        Every complaint, joined by semicolons.
    """
    complaints = []
    for item in error.errors(include_url=False):
        field = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            complaints.append(f"{field}: unknown key; remove it or correct its spelling")
            continue
        reason = item["msg"].removeprefix("Value error, ")
        value = "" if isinstance(item["input"], dict) else f" = {item['input']!r}"
        complaints.append(f"{field}{value}: {reason}" if field else reason)
    return f"{where}: " + "; ".join(complaints)
