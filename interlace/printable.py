"""Text from outside as a terminal may print it: control characters become visible escapes."""

from __future__ import annotations

import codecs
import io
import re
import sys

import click

# Control characters but tab and newline, separators of lines, changes of direction, lone surrogates
# and what XML forbids: they move the cursor, hide or reorder text, or cannot be encoded.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_STAND_INS = (  # as wide as what they stand for, but for the arrow
    dict(zip("▁▂▃▄▅▆▇█", "12345678", strict=True))
    | dict(zip("└─┘━│", "+-+-|", strict=True))
    | {"\u2013": "-", "→": "->", "…": "~", "±": "~"}
)
_ERRORS = "interlace.stand_ins"
_LONGEST = 2000  # letters of a line


def printable(text: str) -> str:
    r"""Write control characters as escapes, an escape character as `\x1b`; keep lines and tabs."""
    return _CONTROLS.sub(lambda match: _escaped(match[0]), text)


def one_line(text: str) -> str:
    r"""Write control characters as escapes, a newline as `\n`; shorten overlong text."""
    line = printable(text).replace("\n", "\\n").replace("\t", "\\t")
    half = _LONGEST // 2
    return line if len(line) <= _LONGEST else f"{line[:half]} ... {line[-half:]}"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def say(text: str, *, error: bool = False) -> None:
    """Print text that may quote names and values from outside.

    Args:
        text: one line or several.
        error: print to standard error.
    """
    click.echo(printable(text), err=error)


def prepare_streams() -> None:
    """Let standard output and error take any text: what their encoding lacks gets a stand-in."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def _stand_ins(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_STAND_INS.get(letter) or _escaped(letter) for letter in letters), error.end


codecs.register_error(_ERRORS, _stand_ins)
