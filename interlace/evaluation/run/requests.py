"""The messages of lmms-eval's requests, and the end of an answer. No lmms-eval here."""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from PIL import Image, UnidentifiedImageError

from interlace.errors import InputError
from interlace.model.images import UnfitImage, open_image

# of an image: ours, and those of tasks that decode base64 on their own
BROKEN = (UnfitImage, UnidentifiedImageError, Image.DecompressionBombError, binascii.Error)


@contextmanager
def broken_images_named(task: str, row: int) -> Iterator[None]:
    """Name the row of an image that cannot be opened.

    Raises:
        InputError: the block met such an image.
    """
    try:
        yield
    except BROKEN as error:
        raise InputError(
            f"evaluate: task {task!r}, row {row}: {' '.join(str(error).split())}; repair the"
            " image, or remove the row"
        ) from None


def cut(answer: str, stops: Sequence[str] | str) -> str:
    """Return an answer up to the first stop string."""
    for stop in [stops] if isinstance(stops, str) else stops:
        answer = answer.split(stop)[0] if stop else answer
    return answer


def hf_messages(messages: Sequence[Mapping[str, Any]], task: str) -> list[dict[str, Any]]:
    """Convert messages of lmms-eval ({"type": "image", "url": image}) to those of processors."""
    return [
        {
            "role": message["role"],
            "content": [_item(item, task) for item in message["content"]],
        }
        for message in messages
    ]


def _item(item: Mapping[str, Any], task: str) -> dict[str, Any]:
    if item["type"] == "text":
        return {"type": "text", "text": item["text"]}
    if item["type"] != "image":
        raise InputError(f"task {task!r} shows the model {item['type']}; only images are supported")
    image = item["image"] if "image" in item else item["url"]
    return {
        "type": "image",
        "image": open_image(Image.open(image) if isinstance(image, str) else image),
    }
