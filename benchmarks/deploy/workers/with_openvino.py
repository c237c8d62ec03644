"""Answer questions with OpenVINO, by optimum-intel or by openvino-genai.

    PYTHON with_openvino.py CHECKPOINT QUESTIONS ANSWERS MODE FOLDER

Runs in an environment of its own, without Interlace. Modes: optimum, genai. FOLDER gets the model
as OpenVINO reads it, once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

LONGEST = 12
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def export(checkpoint: str, folder: str) -> None:
    """Convert a checkpoint with optimum-intel's command, unless it is converted."""
    if (Path(folder) / "openvino_detokenizer.xml").exists():
        return
    program = Path(sys.executable).parent / "optimum-cli"
    task = ["--task", "image-text-to-text", "--weight-format", "fp32"]
    command = [program, "export", "openvino", "--model", checkpoint, *task, folder]
    if code := subprocess.run(command).returncode:
        sys.exit(code)  # its last line is the reason


def by_optimum(folder: str, questions: list[dict[str, Any]]) -> list[str]:
    """Answer with optimum-intel's model, which generates as transformers does."""
    from optimum.intel import OVModelForVisualCausalLM
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = OVModelForVisualCausalLM.from_pretrained(folder, ov_config=EXACT)
    texts = []
    for question in questions:
        images = [Image.open(path).convert("RGB") for path in question["images"]]
        content: list[dict[str, Any]] = [{"type": "image"} for _ in images]
        content.append({"type": "text", "text": question["text"]})
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        inputs = processor(text=[prompt], images=images, return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False)
        new = tokens[0, inputs["input_ids"].shape[1] :]
        texts.append(processor.tokenizer.decode(new, skip_special_tokens=True))
    return texts


def by_genai(folder: str, questions: list[dict[str, Any]]) -> list[str]:
    """Answer with openvino-genai's pipeline."""
    import openvino
    import openvino_genai

    pipeline = openvino_genai.VLMPipeline(folder, "CPU", **EXACT)
    texts = []
    for question in questions:
        images = [
            openvino.Tensor(np.asarray(Image.open(path).convert("RGB"))[None])
            for path in question["images"]
        ]
        result = pipeline.generate(
            question["text"], images=images, max_new_tokens=LONGEST, do_sample=False
        )
        texts.append(result.texts[0])
    return texts


def main(checkpoint: str, questions: str, answers: str, mode: str, folder: str) -> None:
    """Answer all questions greedily and write the answers."""
    export(checkpoint, folder)
    rows = json.loads(Path(questions).read_text(encoding="utf-8"))
    texts = {"optimum": by_optimum, "genai": by_genai}[mode](folder, rows)
    Path(answers).write_text(json.dumps(texts), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
