"""Ask a model the demo's questions and count the answers that match exactly."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tqdm import tqdm

from interlace.model.chat import Inputs, chat_messages, collate, encode_messages


def last_prompt(processor: Any, row: Mapping[str, Any]) -> Inputs:
    """Encode a row up to its last question; earlier turns keep their true answers."""
    inputs = encode_messages(processor, chat_messages(row)[:-1])
    inputs.pop("labels")
    return inputs


@torch.inference_mode()
def answers(model: Any, processor: Any, prompts: Sequence[Inputs], batch: int = 64) -> list[str]:
    """Greedy answers to the prompts, generated in left-padded batches of similar length."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]["input_ids"]))
    found: dict[int, str] = {}
    pad = processor.tokenizer.pad_token_id
    for start in tqdm(range(0, len(order), batch), desc="answer", unit="batch"):
        chosen = order[start : start + batch]
        inputs = collate([prompts[i] for i in chosen], pad_token_id=pad, side="left")
        tokens = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        texts = processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        found.update(zip(chosen, texts, strict=True))
    return [found[i].strip() for i in range(len(prompts))]


def exact_match(rows: Sequence[Mapping[str, Any]], given: Sequence[str]) -> dict[str, float]:
    """Percent of exact answers to the last question, per source and over `all` rows."""
    hits = defaultdict(list)
    for row, answer in zip(rows, given, strict=True):
        hit = answer == row["texts"][-1]["assistant"]
        hits[row["source"]].append(hit)
        hits["all"].append(hit)
    return {name: 100 * sum(found) / len(found) for name, found in sorted(hits.items())}
