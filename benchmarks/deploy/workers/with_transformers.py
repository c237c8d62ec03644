"""Answer questions with transformers, also with quantised weights.

    PYTHON with_transformers.py CHECKPOINT QUESTIONS ANSWERS MODE

Runs in an environment of its own, without Interlace. Modes: plain, int8, nf4, torchao.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

LONGEST = 12


def quantisation(mode: str) -> dict[str, Any]:
    """Return the settings of `from_pretrained` for a mode."""
    if mode == "plain":
        return {}
    if mode == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        return {"quantization_config": TorchAoConfig(Int8WeightOnlyConfig())}
    from transformers import BitsAndBytesConfig

    if mode == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    four = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
        # a CPU packs rows of whole blocks of 64, and the demo's tower is 96 wide
        llm_int8_skip_modules=["model.visual", "lm_head"],
    )
    return {"quantization_config": four}


def main(checkpoint: str, questions: str, answers: str, mode: str) -> None:
    """Answer all questions greedily and write the answers."""
    torch.set_num_threads(1)
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(
        checkpoint, dtype=torch.float32, **quantisation(mode)
    )
    texts = []
    for question in json.loads(Path(questions).read_text(encoding="utf-8")):
        content: list[dict[str, Any]] = [
            {"type": "image", "image": Image.open(path).convert("RGB")}
            for path in question["images"]
        ]
        content.append({"type": "text", "text": question["text"]})
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        tokens = model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False)
        new = tokens[0, inputs["input_ids"].shape[1] :]
        texts.append(processor.tokenizer.decode(new, skip_special_tokens=True))
    Path(answers).write_text(json.dumps(texts), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
