"""The templates of the page and the model cards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from interlace.printable import printable
from interlace.report.card.markdown import code, escaped, fenced
from interlace.report.facts.roles import Role
from interlace.report.facts.run import file_hashes, shareable
from interlace.report.facts.wording import measured_by, spelled
from interlace.report.figures.style import HAIRLINE, INK, MODEL_INKS, ROLE_COLOURS

COLOURS = {"ink": INK, "line": HAIRLINE}


def render(template: str, **facts: Any) -> str:
    """Fill a template; facts are escaped for its format unless they are `Markup`."""
    escape = escaped if template.endswith(".md") else _printable
    return _environment(escape).get_template(template).render(facts)


def _environment(escape: Callable[[Any], Any]) -> Environment:
    """Return an environment whose every expression passes `escape`, then HTML's if still text."""
    environment = Environment(
        loader=PackageLoader("interlace.report"),
        autoescape=True,
        finalize=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["colours"] = COLOURS
    environment.filters |= {
        "code": code,
        "escaped": escaped,
        "fenced": fenced,
        "hashes": file_hashes,
        "measured": measured_by,
        "ink": lambda model: MODEL_INKS.get(model, INK),
        "one_line": lambda text: " ".join(text.split()),
        "paint": lambda role: f"--role:{ROLE_COLOURS[role]};--on:{_ink_on(role)}",
        "shareable": shareable,
        "spelled": spelled,
    }
    return environment


def _printable(value: Any) -> Any:
    """Make text printable: HTML's own escapes leave control characters as they are."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _ink_on(role: Role) -> str:
    return "#fff" if role is Role.ANCHOR else "#000"  # at least 4.5:1 on each role's colour
