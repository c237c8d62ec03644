"""The templates of the page and the model cards."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from interlace.report.facts.roles import Role
from interlace.report.facts.run import file_hashes, shareable
from interlace.report.facts.wording import device_name, spelled
from interlace.report.figures.style import HAIRLINE, INK, MODEL_INKS, ROLE_COLOURS

COLOURS = {"ink": INK, "line": HAIRLINE}


def render(template: str, **facts: Any) -> str:
    """Fill a template; HTML is escaped, and cells of Markdown tables stay in one cell."""
    return _environment().get_template(template).render(facts)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("interlace.report"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["colours"] = COLOURS
    environment.filters |= {
        "cell": _cell,
        "device": device_name,
        "hashes": file_hashes,
        "ink": lambda model: MODEL_INKS.get(model, INK),
        "one_line": lambda text: " ".join(text.split()),
        "paint": lambda role: f"--role:{ROLE_COLOURS[role]};--on:{_ink_on(role)}",
        "shareable": shareable,
        "spelled": spelled,
    }
    return environment


def _cell(text: str) -> str:
    """Keep a text in one cell of a Markdown table."""
    return " ".join(str(text).split("\n")).replace("|", "\\|")


def _ink_on(role: Role) -> str:
    return "#fff" if role is Role.ANCHOR else "#000"  # at least 4.5:1 on each role's colour
