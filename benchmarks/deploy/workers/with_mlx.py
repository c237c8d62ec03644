"""Answer questions with mlx-vlm.

    PYTHON with_mlx.py CHECKPOINT QUESTIONS ANSWERS

Runs in an environment of its own, without Interlace.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mlx.core as mx
from mlx_vlm import generate, load
from mlx_vlm.prompt_utils import apply_chat_template

LONGEST = 12


def main(checkpoint: str, questions: str, answers: str) -> None:
    """Answer all questions greedily and write the answers."""
    model, processor = load(checkpoint)
    model.set_dtype(mx.float32)
    texts = []
    for question in json.loads(Path(questions).read_text(encoding="utf-8")):
        images = question["images"]
        prompt = apply_chat_template(
            processor, model.config, question["text"], num_images=len(images)
        )
        result = generate(
            model, processor, prompt, image=images, max_tokens=LONGEST, temperature=0.0
        )
        texts.append(result.text)
    Path(answers).write_text(json.dumps(texts), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
