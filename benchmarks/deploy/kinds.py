"""Perplexity in llama.cpp of tiny models whose kinds of layers left their period.

Of each family, a random model loses two single layers. Its GGUF file as llama.cpp's converter
writes it lacks the kinds of layers, and `interlace gguf-pattern` writes them. The perplexity of the
same tokens in transformers says which file is right.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.deploy import llama_cpp
from benchmarks.deploy.environment import CannotRun, run_program
from interlace.checkpoint.config import pruned_config
from interlace.pruning.gguf_pattern import with_pattern, write_pattern
from interlace.system.outputs import whole

TOKENIZER = Path("data/demo/model")
UNDECIDED = ("gpt_oss",)  # llama.cpp differs by 1 to 3% from transformers on a dense random one
DROPPED = (1, 4)  # of the dense layers
WINDOW, CONTEXT, CHUNKS = 8, 128, 8  # tokens, tokens, pieces of text
SECONDS = 300.0
SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "sliding_window": WINDOW,
    "initializer_range": 0.2,
    "num_hidden_layers": 12,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
FURTHER: dict[str, dict[str, Any]] = {
    "cohere2": {"rotary_pct": 1.0},
    "gemma2": {"query_pre_attn_scalar": 16},
    "gemma3_text": {"query_pre_attn_scalar": 16},
}
HEAD = """## Kinds of layers in GGUF files

Perplexity of tiny random models without layers 1 and 4, in llama.cpp with the file of its own
converter, with the kinds that `interlace gguf-pattern` writes, and in transformers, on the same
{tokens} tokens. With the kinds, llama.cpp has to agree with transformers.

| decoder | converter's file | with the kinds | transformers |
|---|--:|--:|--:|
"""


def kinds_table(llama: Path, folder: Path) -> str:
    """Measure all families whose kinds llama.cpp reads from an array; return the table."""
    if not llama_cpp.program(llama, "llama-perplexity").exists():
        return ""
    lines = []
    for decoder in sorted(set(with_pattern()) - set(UNDECIDED)):
        try:
            values = measure(llama.absolute(), decoder, (folder / decoder).absolute())
            cells = [f"{value:.2f}" for value in values]
        except CannotRun as error:
            cells = [f"not converted: {error}", "", ""]
        lines.append(f"| `{decoder}` | {' | '.join(cells)} |")
    return HEAD.format(tokens=CONTEXT * CHUNKS) + "\n".join(lines) + "\n"


def measure(llama: Path, decoder: str, folder: Path) -> tuple[float, float, float]:
    """Return the perplexities of one family: converter's file, with the kinds, transformers.

    Raises:
        CannotRun: the converter or llama.cpp fails.
    """
    result = folder / "result.json"
    if result.exists():
        first, second, third = json.loads(result.read_text(encoding="utf-8"))
        return first, second, third
    shutil.rmtree(folder, ignore_errors=True)
    checkpoint, text, file = folder / "model", folder / "text.txt", folder / "model.gguf"
    tokens = _write_model(decoder, checkpoint, text)
    llama_cpp.convert(llama, checkpoint, file, SECONDS)
    without = _perplexity(llama, file, text)
    write_pattern(file, checkpoint)
    values = without, _perplexity(llama, file, text), expected(checkpoint, tokens)
    with whole(result) as partial:
        partial.write_text(json.dumps(values), encoding="utf-8")
    return values


def _write_model(decoder: str, checkpoint: Path, text: Path) -> list[int]:
    """Write a random model with the kinds of a pruned one, and a text; return the text's tokens."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    tokenizer.save_pretrained(checkpoint)
    shape = SHAPE | FURTHER.get(decoder, {}) | {"vocab_size": len(tokenizer)}
    dense = AutoConfig.for_model(decoder, **shape).to_dict()
    keep = [layer for layer in range(SHAPE["num_hidden_layers"]) if layer not in DROPPED]
    config = AutoConfig.for_model(**pruned_config(dense, keep, decoder))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(checkpoint)
    # words alone: Qwen2's rule, which the converter is told, splits numbers and spaces otherwise
    content = " ".join(re.findall("[a-z]+", Path("LICENSE").read_text(encoding="utf-8").lower()))
    tokens: list[int] = tokenizer(content, add_special_tokens=False)["input_ids"]
    with whole(text) as partial:
        partial.write_text(content, encoding="utf-8")
    return tokens


def expected(checkpoint: Path, tokens: Sequence[int]) -> float:
    """Return the perplexity in transformers, over the second half of each piece.

    llama-perplexity does the same: a piece of CONTEXT tokens is read at once, and the tokens after
    its middle count.
    """
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    )
    losses = []
    for start in range(0, CONTEXT * CHUNKS, CONTEXT):
        piece = torch.tensor([list(tokens[start : start + CONTEXT])])  # 1 x CONTEXT
        with torch.inference_mode():
            logits = model(input_ids=piece, use_cache=False).logits[0].double()
        half = CONTEXT // 2
        losses.append(
            torch.nn.functional.cross_entropy(
                logits[half:-1], piece[0, half + 1 :], reduction="sum"
            )
        )
    count = CHUNKS * (CONTEXT - CONTEXT // 2 - 1)
    return math.exp(sum(float(loss) for loss in losses) / count)


def _perplexity(llama: Path, file: Path, text: Path) -> float:
    """Run llama-perplexity; return its last estimate."""
    words = [llama_cpp.program(llama, "llama-perplexity"), "-m", file, "-f", text]
    sizes = ["-c", str(CONTEXT), "-b", str(CONTEXT), "--chunks", str(CHUNKS), "-t", "1"]
    log = file.with_suffix(".perplexity.log")
    output = run_program([*words, *sizes, "-fa", "off"], log, SECONDS)
    # the log holds earlier runs too
    estimates = re.findall(r"Final estimate: PPL = ([0-9.]+)", output + log.read_text("utf-8"))
    if not estimates:
        raise CannotRun("llama-perplexity gave no estimate")
    return float(estimates[-1])
