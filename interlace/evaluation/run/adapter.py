"""An lmms-eval model for any Hugging Face checkpoint that chats, with images or text alone.

This module imports lmms-eval (seconds): import it inside `isolation.isolated`. B is the number of
prompts in a batch, T the tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from lmms_eval.api.model import lmms
from tqdm import tqdm

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.evaluation.run.journal import Reply
from interlace.evaluation.run.requests import broken_images_named, cut, hf_messages
from interlace.model.chat import (
    Inputs,
    UnplacedLabels,
    encode_messages,
    encode_whole,
)
from interlace.model.generation import AnswerGenerator, Draws
from interlace.model.prefetch import automatic_workers, free_memory, one_ahead, prefetched
from interlace.model.row_losses import RowLoss, last_answer, prompt_of, row_losses
from interlace.model.sampling import sampling_of
from interlace.params.evaluating import Evaluate

WINDOW_BATCHES = 8  # batches in a window, within which prompts are sorted by length
# of encoded prompts in memory: so many, or a part of what is free; others are encoded twice
WINDOW_BYTES, FREE_PART = 2**30, 8


@dataclass(frozen=True)
class _Encoded:
    """A request as model inputs.

    Attributes:
        prompt: what generation starts from.
        answered: the prompt and the true answer, with its labels; None: no loss is measured.
    """

    prompt: Inputs
    answered: Inputs | None = None

    @property
    def size(self) -> int:
        """Bytes in memory; the prompt's tensors are views of the answered ones."""
        return sum(value.nbytes for value in (self.answered or self.prompt).values())


class CheckpointAdapter(lmms):  # type: ignore[misc]
    """A model that answers in batches of similar length, padded on the left.

    Where a row's true answer is known, its loss is measured in the same pass over the data.

    Args:
        model: a generating model, on its device.
        processor: its processor.
        batch_size: prompts per batch.
        workers: processes that open images ahead.
    """

    is_simple = False  # requests carry chat messages, earlier turns included

    def __init__(self, model: Any, processor: Any, *, batch_size: int, workers: int = 0) -> None:
        super().__init__()
        self.model = model
        self.processor = processor
        self.batch_size = batch_size
        self.workers = workers
        self.conversations: dict[str, Callable[[Any], list[dict[str, Any]]]] = {}
        self.device = model.device
        self.dtype = model.dtype
        self.generator = AnswerGenerator(model, processor)

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refuse: no benchmark here ranks answers."""
        raise NotImplementedError("this adapter generates answers; it does not rank them")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuse: no benchmark here has several rounds."""
        raise NotImplementedError("this adapter answers in one round")

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer all requests as their settings say, see `tasks.request_settings`.

        Args:
            requests: lmms-eval instances of (context, doc_to_messages, generation settings,
                row, task, split).

        Returns:
            The answers, in the order of the requests, cut before the first stop string.
        """
        replies: dict[int, Reply] = {}
        for batch in self.batches(requests):
            replies |= batch
        return [replies[index].text for index in range(len(requests))]

    def batches(
        self,
        requests: Sequence[Any],
        *,
        skip: Container[int] = (),
        process: int = 0,
        processes: int = 1,
    ) -> Iterator[dict[int, Reply]]:
        """Answer requests batch by batch; yield the replies of each by index in `requests`.

        Batches, and so rounding, depend neither on `skip` nor on the number of processes.

        Args:
            requests: see `generate_until`.
            skip: indices that need no answer.
            process: rank of this process, which answers its share.
            processes: number of processes.
        """
        # longest first: a batch that does not fit in memory fails at once
        order = sorted(range(len(requests)), key=lambda i: -len(str(requests[i].args[0])))
        size = WINDOW_BATCHES * self.batch_size
        windows = [order[start : start + size] for start in range(0, len(order), size)]
        windows = windows[process::processes]
        pending = [window for window in windows if not all(index in skip for index in window)]
        bar = tqdm(
            total=sum(map(len, windows)),
            initial=sum(index in skip for window in windows for index in window),
            desc="answering",
            unit="prompt",
            disable=process != 0,
        )
        with (
            bar as progress,
            closing(self._encoded(requests, pending)) as encoded,
            closing(self._batches_of_all(requests, pending, skip, encoded)) as batches,
            closing(one_ahead(batches, self.workers > 0)) as ready,
        ):
            for batch, inputs in ready:
                settings = [requests[index].args[2] for index in batch]
                yield dict(zip(batch, self._replies(inputs, settings), strict=True))
                progress.update(sum(index not in skip for index in batch))

    def _batches_of_all(
        self,
        requests: Sequence[Any],
        windows: Sequence[Sequence[int]],
        skip: Container[int],
        encoded: Iterator[_Encoded],
    ) -> Generator[tuple[list[int], list[_Encoded]], None, None]:
        """Form the batches of all windows."""
        for window in windows:
            yield from self._batches_of(requests, window, skip, encoded)

    def _batches_of(
        self,
        requests: Sequence[Any],
        window: Sequence[int],
        skip: Container[int],
        encoded: Iterator[_Encoded],
    ) -> Iterator[tuple[list[int], list[_Encoded]]]:
        """Form batches of prompts of similar length from a window's encoded requests."""
        inputs_by_index: dict[int, _Encoded] = {}
        lengths: dict[int, int] = {}
        free_bytes = max(WINDOW_BYTES, free_memory() // FREE_PART)
        for index in window:
            inputs = next(encoded)
            lengths[index] = inputs.prompt["input_ids"].shape[0]
            free_bytes -= inputs.size
            if free_bytes >= 0:
                inputs_by_index[index] = inputs
        ordered = sorted(window, key=lambda index: -lengths[index])
        for start in range(0, len(ordered), self.batch_size):
            batch = ordered[start : start + self.batch_size]
            if all(index in skip for index in batch):
                continue
            for index in batch:
                if index not in inputs_by_index:
                    inputs_by_index[index] = self._encode(requests[index])
            yield batch, [inputs_by_index.pop(index) for index in batch]

    def _encoded(
        self, requests: Sequence[Any], windows: Sequence[Sequence[int]]
    ) -> Generator[_Encoded, None, None]:
        """Encode the requests of windows, in order, ahead of the batches that need them."""

        def name(index: int) -> str:
            *_, row, task, _ = requests[index].args
            return f"evaluate: task {task!r}, row {row}"

        return prefetched(
            lambda index: self._encode(requests[index]),
            (index for window in windows for index in window),
            workers=self.workers,
            name=name,
            setting="evaluate.workers",
        )

    def _encode(self, request: Any) -> _Encoded:
        _, doc_to_messages, settings, row, task, split = request.args
        with broken_images_named(task, row):
            doc = self.task_dict[task][split][row]  # opens the images of some tasks
            if conversation := self.conversations.get(task):
                messages = hf_messages(conversation(doc), task)
                try:
                    answered = last_answer(encode_messages(self.processor, messages))
                    return _Encoded(prompt_of(answered), answered)
                except UnplacedLabels:
                    if not settings["max_new_tokens"]:  # no score without the loss
                        raise
            messages = hf_messages(doc_to_messages(doc), task)
        later_image = any(
            item["type"] == "image" for turn in messages[1:] for item in turn["content"]
        )
        if messages[0]["role"] == "user" and not later_image:
            inputs = encode_messages(self.processor, messages)
        else:
            inputs = encode_whole(self.processor, messages)
        return _Encoded({name: value for name, value in inputs.items() if name != "labels"})

    def _replies(
        self, inputs: Sequence[_Encoded], settings: Sequence[Mapping[str, Any]]
    ) -> list[Reply]:
        """Answer a batch, and measure the loss where the true answer is known.

        The choices behind the loss tell most answers, so few are generated.
        """
        examples = {i: request.answered for i, request in enumerate(inputs) if request.answered}
        losses_of_rows = row_losses(
            self.model, list(examples.values()), pad_token_id=self.generator.pad_id
        )
        losses = dict(zip(examples, losses_of_rows, strict=True))
        texts: dict[int, str] = {}
        for i, loss in losses.items():
            text = self._known_text(loss, settings[i]["max_new_tokens"])
            if text is not None:
                texts[i] = text
        if unknown := [i for i in range(len(inputs)) if i not in texts]:
            prompts = [inputs[i].prompt for i in unknown]
            generated = self._generate(prompts, [settings[i] for i in unknown])
            texts |= zip(unknown, generated, strict=True)
        facts = {i: (loss.loss, loss.tokens, loss.choices) for i, loss in losses.items()}
        return [Reply(texts[i], *facts.get(i, ())) for i in range(len(inputs))]

    def _known_text(self, loss: RowLoss, longest: int) -> str | None:
        """Return the text that greedy generation gives; None where the choices do not tell.

        Generation repeats the true answer up to the first choice that differs, and continues from
        that, unless it is an end token or the last one.
        """
        if not longest:  # nothing is generated
            return ""
        pairs = enumerate(zip(loss.tokens, loss.choices, strict=True))
        same = next((i for i, (token, choice) in pairs if token != choice), len(loss.choices))
        ids = loss.choices[: min(same + 1, longest)]
        ends = len(ids) == longest or not self.generator.end_ids.isdisjoint(ids)
        return self.generator.decode(ids) if ends else None

    def _generate(
        self, examples: Sequence[Inputs], settings: Sequence[Mapping[str, Any]]
    ) -> list[str]:
        """Answer prompts of a batch, those of the same sampling together."""
        texts: dict[int, str] = {}
        for sampling in dict.fromkeys(map(sampling_of, settings)):
            alike = [i for i, setting in enumerate(settings) if sampling_of(setting) == sampling]
            longest = max(settings[i]["max_new_tokens"] for i in alike)
            draws = [_draws(settings[i], longest) for i in alike] if sampling.temperature else None
            answers = self.generator.generate(
                [examples[i] for i in alike],
                longest,
                sampling=sampling,
                draws=None if draws is None else np.stack(draws),
            )
            for i, ids in zip(alike, answers, strict=True):
                text = self.generator.decode(ids[: settings[i]["max_new_tokens"]])
                texts[i] = cut(text, settings[i].get("until") or ())
        return [texts[i] for i in range(len(settings))]


def _draws(settings: Mapping[str, Any], longest: int) -> Draws:
    """Return the random numbers of an answer: a function of its request's seed alone."""
    return np.random.default_rng(settings["seed"]).random(longest)


def open_adapter(
    checkpoint: Checkpoint, params: Evaluate, *, dtype: str = "auto"
) -> CheckpointAdapter:
    """Load a checkpoint on this process's GPU, or on the CPU where there is none.

    Args:
        checkpoint: any supported model; its folder may be a hub id.
        params: prompts per batch, the attention implementation, and the cap on an image's size.
        dtype: "auto" is bfloat16 on a GPU and float32 on a CPU.
    """
    model = checkpoint.open_model(dtype=dtype, attn_implementation=params.attn_implementation)
    processor = checkpoint.open_processor(max_pixels=params.max_pixels)
    workers = automatic_workers(params.workers)
    return CheckpointAdapter(model, processor, batch_size=params.batch_size, workers=workers)
