"""Text from outside in Markdown: shown as it is, never read as a table, a link or a tag."""

from __future__ import annotations

import re

from markupsafe import Markup

from interlace.printable import printable

_ENTITIES = {"\\": "&#92;", "<": "&lt;", ">": "&gt;", "&": "&amp;"}
# Underscores between letters mean nothing, nor do brackets around numbers that no address follows.
_SPECIAL = re.compile(
    r"""[\\`*<>|~$] | &(?=\#|\w+;) | (?<![^\W_])_ | _(?![^\W_])
    | (?<=\])[(\[:] | \[(?![-+\d.,%x\ ]*\](?![(\[:]))""",
    re.VERBOSE,
)
_OPENING = re.compile(r"([#+=-](?=[\s#+=-]|$)|(?<=\d)[.)](?=\s|$))")  # of a heading, a list, a line
_RUN = re.compile("`+")


def escaped(value: object) -> Markup:
    """Escape text for a place in a line or a cell; what is Markdown already stays."""
    if isinstance(value, Markup):
        return value
    text = " ".join(printable(str(value)).splitlines()).lstrip()
    text = _SPECIAL.sub(lambda match: _ENTITIES.get(match[0], f"\\{match[0]}"), text)
    number = len(text) - len(text.lstrip("0123456789"))
    opening = _OPENING.match(text, number)
    if opening and (number > 0) == (opening[0] in ".)"):
        text = f"{text[:number]}\\{text[number:]}"
    return Markup(text)


def bold(value: object) -> Markup:
    """Return escaped text in bold."""
    return Markup(f"**{escaped(value)}**")


def code(value: object) -> Markup:
    """Return text as code in a line or a cell."""
    text = printable(str(value))
    if not text.strip() or text != text.strip() or re.search(r"[`|\\\n\t]", text):
        return Markup(f"<code>{escaped(text)}</code>")
    return Markup(f"`{text}`")


def fenced(text: str, language: str) -> Markup:
    """Return text as a block of code, between fences longer than any in it."""
    fence = "`" * max([3, *(len(run) + 1 for run in _RUN.findall(text))])
    return Markup(f"{fence}{language}\n{printable(text).rstrip()}\n{fence}")
