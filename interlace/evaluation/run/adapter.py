"""Any Hugging Face vision-language checkpoint as an lmms-eval model.

This module imports lmms-eval (seconds): import it inside `isolation.isolated`. B is the number of
prompts in a batch, T the tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import torch
from lmms_eval.api.model import lmms
from PIL import Image
from tqdm import tqdm

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.model.chat import Inputs, collate, encode_messages, encode_whole, open_image

WINDOW_BATCHES = 8  # prompts are sorted by length within so many batches, the share of a process
WINDOW_BYTES = 2**30  # encoded prompts that are kept; further ones are encoded twice


class CheckpointAdapter(lmms):  # type: ignore[misc]
    """Generates greedily, in batches of like length, padded on the left.

    Args:
        model: a generating vision-language model, on its device.
        processor: its processor.
        batch_size: prompts per batch.
    """

    is_simple = False  # requests carry chat messages, so earlier turns have their place

    def __init__(self, model: Any, processor: Any, *, batch_size: int) -> None:
        super().__init__()
        self.model = model
        self.processor = processor
        self.batch_size = batch_size
        self.device = model.device
        self.dtype = model.dtype
        tokenizer = processor.tokenizer
        ends = model.generation_config.eos_token_id
        ends = tokenizer.eos_token_id if ends is None else ends
        self.end_ids = frozenset(ends if isinstance(ends, list) else [ends]) - {None}
        self.pad_id = tokenizer.pad_token_id
        if self.pad_id is None:
            self.pad_id = min(self.end_ids, default=0)
        model.generation_config = _greedy(self.end_ids, self.pad_id)

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not offered: no benchmark here ranks given answers."""
        raise NotImplementedError("this adapter generates answers; it does not rank given ones")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered: no benchmark here answers its own answers."""
        raise NotImplementedError("this adapter answers in one round")

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer every request greedily, whatever sampling its task asks for.

        Args:
            requests: lmms-eval instances of (context, doc_to_messages, generation settings,
                row, task, split).

        Returns:
            The answers, in the order of the requests, cut before the first stop.
        """
        made: dict[int, str] = {}
        for answers in self.batches(requests):
            made |= answers
        return [made[place] for place in range(len(requests))]

    def batches(
        self,
        requests: Sequence[Any],
        *,
        known: Container[int] = (),
        process: int = 0,
        processes: int = 1,
    ) -> Iterator[dict[int, str]]:
        """Answer requests batch by batch: each yields answers by their place in `requests`.

        Batches are the same whatever is known and however many processes there are, so that
        rounding is the same too.

        Args:
            requests: see `generate_until`.
            known: places that need no answer.
            process: which of the processes this is, 0-based; it answers its share.
            processes: how many share the requests.
        """
        # longest first: what does not fit in memory fails at once
        order = sorted(range(len(requests)), key=lambda i: -len(str(requests[i].args[0])))
        size = WINDOW_BATCHES * self.batch_size
        windows = [order[start : start + size] for start in range(0, len(order), size)]
        windows = windows[process::processes]
        with tqdm(
            total=sum(map(len, windows)), desc="answering", unit="prompt", disable=process != 0
        ) as progress:
            for window in windows:
                left = len(window)
                for batch, inputs in self._batches_of(requests, window, known):
                    settings = [requests[place].args[2] for place in batch]
                    yield dict(zip(batch, self._generate(inputs, settings), strict=True))
                    progress.update(len(batch))
                    left -= len(batch)
                progress.update(left)  # those that were known

    def _batches_of(
        self, requests: Sequence[Any], window: Sequence[int], known: Container[int]
    ) -> Iterator[tuple[list[int], list[Inputs]]]:
        """Encode a window's prompts, and form batches of like length."""
        if all(place in known for place in window):
            return
        held: dict[int, Inputs] = {}
        lengths: dict[int, int] = {}
        room = WINDOW_BYTES
        for place in window:
            inputs = self._encoded(requests[place])
            lengths[place] = inputs["input_ids"].shape[0]
            room -= sum(value.nbytes for value in inputs.values())
            if room >= 0:
                held[place] = inputs
        ordered = sorted(window, key=lambda place: -lengths[place])
        for start in range(0, len(ordered), self.batch_size):
            batch = ordered[start : start + self.batch_size]
            if all(place in known for place in batch):
                continue
            for place in batch:
                if place not in held:
                    held[place] = self._encoded(requests[place])
            yield batch, [held.pop(place) for place in batch]

    def _encoded(self, request: Any) -> Inputs:
        _, doc_to_messages, _, row, task, split = request.args
        messages = _hf_messages(doc_to_messages(self.task_dict[task][split][row]), task)
        later = any(part["type"] == "image" for turn in messages[1:] for part in turn["content"])
        if messages[0]["role"] == "user" and not later:
            inputs = encode_messages(self.processor, messages)
        else:
            inputs = encode_whole(self.processor, messages)
        return {name: value for name, value in inputs.items() if name != "labels"}

    @torch.inference_mode()
    def _generate(
        self, examples: Sequence[Inputs], settings: Sequence[Mapping[str, Any]]
    ) -> list[str]:
        batch = {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for name, value in collate(examples, pad_token_id=self.pad_id, side="left").items()
        }
        longest = max(setting["max_new_tokens"] for setting in settings)
        made = self.model.generate(**batch, max_new_tokens=longest)  # [B, T + new]
        made = made[:, batch["input_ids"].shape[1] :].tolist()
        return [
            _cut(self._decoded(ids[: setting["max_new_tokens"]]), setting.get("until") or ())
            for ids, setting in zip(made, settings, strict=True)
        ]

    def _decoded(self, ids: list[int]) -> str:
        end = next((place for place, token in enumerate(ids) if token in self.end_ids), len(ids))
        return str(self.processor.tokenizer.decode(ids[:end], skip_special_tokens=True))


def open_adapter(
    checkpoint: Checkpoint,
    *,
    batch_size: int,
    dtype: str = "auto",
    max_pixels: int | None = None,
) -> CheckpointAdapter:
    """Load a checkpoint on this process's GPU, or on the CPU where there is none.

    Args:
        checkpoint: any vision-language model; its folder may be a hub id.
        batch_size: prompts per batch.
        dtype: "auto" is bfloat16 on a GPU and float32 on a CPU.
        max_pixels: cap on an image's size; none: the processor's own.
    """
    model = checkpoint.open_model(dtype=dtype)
    processor = checkpoint.open_processor(max_pixels=max_pixels)
    return CheckpointAdapter(model, processor, batch_size=batch_size)


def _greedy(end_ids: frozenset[int], pad_id: int) -> Any:
    """Greedy settings; the checkpoint's own (temperature, penalties) would fill any gap."""
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=False, num_beams=1, eos_token_id=sorted(end_ids) or None, pad_token_id=pad_id
    )


def _cut(answer: str, stops: Sequence[str] | str) -> str:
    for stop in [stops] if isinstance(stops, str) else stops:
        answer = answer.split(stop)[0] if stop else answer
    return answer


def _hf_messages(messages: Sequence[Mapping[str, Any]], task: str) -> list[dict[str, Any]]:
    """Messages of lmms-eval ({"type": "image", "url": image}) as our processors take them."""
    return [
        {
            "role": message["role"],
            "content": [_hf_part(part, task) for part in message["content"]],
        }
        for message in messages
    ]


def _hf_part(part: Mapping[str, Any], task: str) -> dict[str, Any]:
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    if part["type"] != "image":
        raise InputError(f"task {task!r} shows the model {part['type']}; only images are supported")
    image = part["image"] if "image" in part else part["url"]
    return {
        "type": "image",
        "image": open_image(Image.open(image) if isinstance(image, str) else image),
    }
