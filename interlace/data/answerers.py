"""The dense model that answers training prompts: opened here, or behind an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.data.answers import Answerer, OwnAnswer, TurnPrompt
from interlace.errors import InputError, complaint
from interlace.model.batches import batches
from interlace.model.chat import Inputs, chat_messages, encode_messages
from interlace.model.generation import AnswerGenerator, Draws
from interlace.model.sampling import Sampling
from interlace.params.answers import ENDPOINT, AnswersParams, OwnAnswers, RowBounds
from interlace.samples.order import answer_seed
from interlace.sources.endpoint import Endpoint, wire_messages

TIMEOUT = 600.0  # seconds for one answer of a served model, which may be long and wait its turn


class DenseModel:
    """The dense model in memory, see `answers.Answerer`; it answers in batches by tokens.

    Args:
        model: the dense model.
        processor: its processor, with the bounds on images of training.
        params: bounds on answers, and how they are chosen.
        max_length: longest prompt, tokens; training would cut a longer one off.
        seed: of sampled answers.
    """

    rows = 64  # enough for full batches, few enough to share out evenly
    name: str | None = None

    def __init__(
        self, model: Any, processor: Any, params: OwnAnswers, *, max_length: int, seed: int
    ) -> None:
        self.generator = AnswerGenerator(model, processor)
        self.processor = processor
        self.params = params
        self.max_length = max_length
        self.seed = seed

    def answer(self, prompts: Sequence[TurnPrompt]) -> list[OwnAnswer | str]:
        """See `answers.Answerer`."""
        answers: dict[int, OwnAnswer | str] = {}
        inputs: dict[int, Inputs] = {}
        for number, prompt in enumerate(prompts):
            try:
                inputs[number] = encoded(self.processor, prompt, self.max_length)
            except InputError as error:
                answers[number] = complaint(error)
        numbers, longest = list(inputs), self.params.max_new_tokens
        lengths = [inputs[number]["input_ids"].shape[0] + longest for number in numbers]
        for group in batches(lengths, self.params.batch_tokens):
            batch = [numbers[i] for i in group]
            draws = np.stack([self._draws(prompts[number]) for number in batch])
            tokens = self.generator.generate(
                [inputs[number] for number in batch],
                longest,
                sampling=Sampling(self.params.temperature),
                draws=draws,
            )
            for number, ids in zip(batch, tokens, strict=True):
                answers[number] = OwnAnswer(self.generator.decode(ids), len(ids) == longest)
        return [answers[number] for number in range(len(prompts))]

    def _draws(self, prompt: TurnPrompt) -> Draws:
        """Return the random numbers of an answer: a function of the seed, the row and the turn."""
        seed = answer_seed(self.seed, prompt.row["sample_id"], prompt.turn)
        return np.random.default_rng(seed).random(self.params.max_new_tokens)


class ServedDenseModel:
    """The dense model behind an endpoint, see `answers.Answerer`; each prompt is one request.

    Args:
        endpoint: its client.
        processor: the dense model's, to see which prompts are too long.
        params: bounds on answers, how they are chosen, and requests at the same time.
        max_length: longest prompt, tokens.
        seed: of sampled answers, for endpoints that take one.
    """

    rows = 256  # the most that a window holds, so that many requests can be open

    def __init__(
        self, endpoint: Endpoint, processor: Any, params: OwnAnswers, *, max_length: int, seed: int
    ) -> None:
        self.endpoint = endpoint
        self.name: str | None = endpoint.model
        self.processor = processor
        self.params = params
        self.max_length = max_length
        self.seed = seed

    def answer(self, prompts: Sequence[TurnPrompt]) -> list[OwnAnswer | str]:
        """See `answers.Answerer`.

        Raises:
            InputError: the endpoint is down, refuses, or answers something else.
        """
        pool = ThreadPoolExecutor(self.params.endpoint.concurrency)
        try:
            return list(pool.map(self._answer, prompts))
        finally:
            pool.shutdown(cancel_futures=True)

    def _answer(self, prompt: TurnPrompt) -> OwnAnswer | str:
        try:
            encoded(self.processor, prompt, self.max_length)
        except InputError as error:
            return complaint(error)
        sampled = self.params.temperature > 0
        seed = answer_seed(self.seed, prompt.row["sample_id"], prompt.turn)
        reply = self.endpoint.complete(
            wire_messages(chat_messages(prompt.row)[:-1]),
            max_tokens=self.params.max_new_tokens,
            temperature=self.params.temperature,
            seed=seed if sampled else None,
        )
        return OwnAnswer(reply.text, reply.cut)


def encoded(processor: Any, prompt: TurnPrompt, max_length: int) -> Inputs:
    """Encode a prompt as training does.

    Raises:
        InputError: it is longer than `max_length`, or cannot be encoded.
    """
    inputs = encode_messages(processor, chat_messages(prompt.row)[:-1])
    if inputs["input_ids"].shape[0] > max_length:
        raise InputError(f"a prompt longer than finetune.max_length = {max_length} tokens")
    return {name: value for name, value in inputs.items() if name != "labels"}


def open_answerer(
    dense: Checkpoint, params: AnswersParams, bounds: RowBounds, *, memory: Path | None = None
) -> Answerer:
    """Open what answers training prompts, with images as training sees them.

    Args:
        dense: the dense model; of a served one only the processor is opened.
        params: bounds on answers, how they are chosen, and the endpoint, if there is one.
        bounds: of training rows.
        memory: folder that caches an endpoint's replies; `None`: no cache.
    """
    options, served = params.answers, params.answers.endpoint
    processor = dense.open_processor(min_pixels=bounds.min_pixels, max_pixels=bounds.max_pixels)
    common: dict[str, Any] = {"max_length": bounds.max_length, "seed": params.seed}
    if served.url is None:
        return DenseModel(dense.open_model(dtype=params.dtype), processor, options, **common)
    endpoint = Endpoint(served, ENDPOINT, memory=memory, timeout=TIMEOUT)
    return ServedDenseModel(endpoint, processor, options, **common)
