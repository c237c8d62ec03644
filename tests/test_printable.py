"""Text from outside on a terminal: no control character, whatever the encoding."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from interlace.errors import ContractError, InputError, MissingInputError
from interlace.printable import one_line, prepare_streams, printable

HOSTILE = "\x1b[31mred\x07\x9b\r\u202eabc\u2066\u2028\udcff\ufffe"


def test_control_characters_become_escapes_and_letters_stay() -> None:
    escaped = r"\x1b[31mred\x07\x9b\r\u202eabc\u2066\u2028\udcff\ufffe"
    assert printable(HOSTILE) == escaped == printable(escaped)
    letters = "Füße 数学 עברית 👩‍👩‍👧 [/b] $x$\n\tend"
    assert printable(letters) == letters
    assert one_line("a\nb\tc") == r"a\nb\tc"


@pytest.mark.parametrize(
    "error", [InputError, ContractError, lambda text: MissingInputError(Path(text))]
)
def test_a_message_of_an_error_is_one_line_whatever_it_quotes(error: type[InputError]) -> None:
    message = str(error(f"a\nb {HOSTILE}"))
    assert message.isprintable() and len(message.splitlines()) == 1
    assert len(str(InputError("x" * 100_000))) < 3000


@pytest.mark.parametrize(
    ("encoding", "line"),
    [
        ("ascii", "24 -> 18 ~ 0.5 +-+ 1258 - \\u6570 \\U0001f600 \\udcff"),
        ("latin-1", "24 -> 18 ± 0.5 +-+ 1258 - \\u6570 \\U0001f600 \\udcff"),
        ("utf-8", "24 → 18 ± 0.5 └─┘ ▁▂▅█ \u2013 数 😀 \\udcff"),
    ],
)
def test_a_stream_takes_any_text(encoding: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    prepare_streams()
    stream.write("24 → 18 ± 0.5 └─┘ ▁▂▅█ \u2013 数 😀 \udcff")
    stream.flush()
    assert stream.buffer.getvalue().decode(encoding) == line  # type: ignore[attr-defined]
