"""A tokenizer in the place of a processor, for families without images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interlace.errors import InputError

_INPUTS = ("input_ids", "attention_mask")


class TextProcessor:
    """A tokenizer with the interface of a processor that `interlace.model.chat` uses.

    Attributes:
        tokenizer: the model's.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    @property
    def chat_template(self) -> Any:
        """The tokenizer's chat template, or several by name; `None` if it has none."""
        return self.tokenizer.chat_template

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Any:
        """Render a conversation; templates of text models expect each content as one string.

        Raises:
            InputError: a message holds an image.
        """
        plain = [dict(message) | {"content": _text(message["content"])} for message in messages]
        return self.tokenizer.apply_chat_template(plain, **options)

    def __call__(self, text: list[str], images: None = None, **options: Any) -> dict[str, Any]:
        """Return `input_ids` and `attention_mask`; text models take no types of tokens."""
        inputs = self.tokenizer(text, **options)
        return {name: inputs[name] for name in _INPUTS}


def _text(content: Sequence[Mapping[str, Any]]) -> str:
    if any(item["type"] != "text" for item in content):
        raise InputError(
            "the model takes text alone, and the row has an image; remove such rows from the data,"
            " or choose a vision-language model"
        )
    return "".join(item["text"] for item in content)
