"""The list of contents at the top of a long page."""

from __future__ import annotations

import re
from collections.abc import Iterator

_ABOVE = "On this page:"  # apart from a list that the page may have above
_LINK = re.compile(r"\[([^]]*)\]\([^)]*\)")


def plain(heading: str) -> str:
    """Return the words of a heading: a link is its text."""
    return _LINK.sub(r"\1", heading)


def anchor(heading: str) -> str:
    """Return the anchor that a heading has on GitHub: lower case, hyphens, no punctuation."""
    words = re.sub(r"[^\w\- ]", "", plain(heading).lower())
    return words.strip().replace(" ", "-")


def headings(text: str) -> Iterator[tuple[int, str]]:
    """Yield the level and the words of each heading of a page, outside of code."""
    in_code = False
    for line in text.splitlines():
        if line.startswith("```"):
            in_code = not in_code
        elif not in_code and (found := re.match(r"(#+) (.+)", line)):
            yield len(found[1]), found[2]


def contents(text: str) -> str:
    """Return the list of a page's sections, as links."""
    return "\n".join(
        f"- [{plain(heading)}](#{anchor(heading)})"
        for level, heading in headings(text)
        if level == 2
    )


def with_contents(text: str) -> str:
    """Insert the list of contents before a page's first section, or renew it there."""
    head, sections = re.split(r"^(?=## )", text, maxsplit=1, flags=re.MULTILINE)
    head = head.partition(f"{_ABOVE}\n\n- [")[0]
    return f"{head.rstrip()}\n\n{_ABOVE}\n\n{contents(text)}\n\n{sections}"
