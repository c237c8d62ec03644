"""Methods are found by name."""

from __future__ import annotations

import pytest

from interlace import methods
from interlace.errors import InputError


@pytest.mark.parametrize("name", ["interlace", "consecutive", "random"])
def test_published_methods_are_there(name: str) -> None:
    assert name in methods.METHODS


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("interlase", "interlace"), ("consecutiv", "consecutive"), ("Random", "random")],
)
def test_an_unknown_name_is_answered_with_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(InputError, match=f"method = '{wrong}': .* did you mean {near}"):
        methods.named(wrong)
