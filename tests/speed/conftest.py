from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from models import row

from interlace.model.chat import Inputs, encode_prompt
from interlace.speed.requests import TimedRequest


@pytest.fixture(scope="session")
def batch(processor: Any) -> Callable[..., Inputs]:
    """Makes a batch of `size` copies of one prompt."""

    def make(size: int = 1, images: int = 1) -> Inputs:
        return TimedRequest("a", encode_prompt(processor, row(3, images=images))).batch(size)

    return make
