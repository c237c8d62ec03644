"""Repeat requests to an endpoint that fail for the moment, with growing waits. No torch here."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0  # seconds between two tries, doubled from one to the next
LONGEST_ASKED = 120.0  # seconds that an endpoint may ask to be left alone
TIMEOUTS = 2  # tries that may end without a reply in time
FOR_THE_MOMENT = (408, 409, 429)  # refusals that pass, as do those of 500 and more

T = TypeVar("T")
_chance = random.Random()  # apart from the global state, which others seed


def repeated(request: Callable[[], T], retries: int) -> T:
    """Return what a request returns; repeat it after lost connections and passing refusals.

    A reply that does not come in time is awaited once more: a server that hangs costs two timeouts.

    Args:
        request: one try with OpenAI's client.
        retries: the most further tries.

    Raises:
        OpenAIError: of the last try.
    """
    from openai import APIConnectionError, APIStatusError, APITimeoutError

    timeouts = 0
    for number in range(retries):
        wait = _backoff(number)
        try:
            return request()
        except APITimeoutError:
            timeouts += 1
            if timeouts == TIMEOUTS:
                raise
        except APIConnectionError:
            pass
        except APIStatusError as error:
            requested = _asked_wait(error)
            if not _is_passing(error) or requested > LONGEST_ASKED:
                raise
            wait = requested or wait
        time.sleep(wait)
    return request()


def _backoff(number: int) -> float:
    """Return the wait after a try, less up to a quarter, so that threads do not move in step."""
    wait: float = min(FIRST_WAIT * 2**number, LONGEST_WAIT)
    return wait * (1 - _chance.random() / 4)


def _is_passing(error: Any) -> bool:
    return error.status_code in FOR_THE_MOMENT or error.status_code >= 500


def _asked_wait(error: Any) -> float:
    """Return the seconds that an endpoint asks for; 0: it asks for none."""
    try:
        seconds = float(error.response.headers.get("Retry-After", ""))
    except ValueError:  # none, or a date
        return 0.0
    return seconds if seconds > 0 else 0.0
