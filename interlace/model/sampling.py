"""The choice of each token of an answer: the most likely one, or one drawn. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Sampling:
    """The choice of each token, in the order that vLLM applies it.

    Attributes:
        temperature: divides the logits; 0: the most likely token (greedy).
        top_p: share of the probability that the likeliest tokens hold together; others are never
            drawn.
        top_k: number of the likeliest tokens that may be drawn; 0: all.
        presence_penalty: taken once off the logit of each token that the answer holds already.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    presence_penalty: float = 0.0

    def as_settings(self) -> dict[str, Any]:
        """Return the values by the names of an OpenAI-compatible server's request."""
        return asdict(self)


GREEDY = Sampling()
# of INTERLACE (arXiv 2511.19676), as Qwen3-VL's card recommends
PUBLISHED = Sampling(temperature=0.7, top_p=0.8, top_k=20, presence_penalty=1.5)


def sampling_of(settings: Mapping[str, Any]) -> Sampling:
    """Read how to choose tokens from a request's settings; what they leave out is greedy."""
    return Sampling(**{name: settings[name] for name in vars(GREEDY) if name in settings})
