"""Answers of the dense model, opened here: prompts as training rows, in batches by tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.data.answers import Answer, Prompt
from interlace.errors import InputError, complaint
from interlace.model.batches import batches
from interlace.model.chat import Inputs, chat_messages, encode_messages
from interlace.model.generation import AnswerGenerator, Draws
from interlace.params.answers import OwnAnswers, RowBounds
from interlace.samples.order import shuffle_key


class DenseModel:
    """See `answers.Answerer`.

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

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer | str]:
        """See `answers.Answerer`."""
        answers: dict[int, Answer | str] = {}
        inputs: dict[int, Inputs] = {}
        for number, prompt in enumerate(prompts):
            try:
                inputs[number] = self._encode(prompt)
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
                temperature=self.params.temperature,
                draws=draws,
            )
            for number, ids in zip(batch, tokens, strict=True):
                answers[number] = Answer(self.generator.decode(ids), len(ids) == longest)
        return [answers[number] for number in range(len(prompts))]

    def _encode(self, prompt: Prompt) -> Inputs:
        inputs = encode_messages(self.processor, chat_messages(prompt.row)[:-1])
        if inputs["input_ids"].shape[0] > self.max_length:
            raise InputError(f"a prompt longer than finetune.max_length = {self.max_length} tokens")
        return {name: value for name, value in inputs.items() if name != "labels"}

    def _draws(self, prompt: Prompt) -> Draws:
        """Return the random numbers of an answer: a function of the seed, the row and the turn."""
        return np.random.default_rng(answer_seed(self.seed, prompt)).random(
            self.params.max_new_tokens
        )


def answer_seed(seed: int, prompt: Prompt) -> int:
    """Return the seed of one sampled answer, below 2**63."""
    key = shuffle_key(seed, "answers", prompt.row["sample_id"], prompt.turn)
    return int.from_bytes(key[:8]) >> 1


def open_dense_model(
    dense: Checkpoint, params: OwnAnswers, bounds: RowBounds, *, dtype: str, seed: int
) -> DenseModel:
    """Open the dense model to answer training prompts, with images as training sees them."""
    processor = dense.open_processor(min_pixels=bounds.min_pixels, max_pixels=bounds.max_pixels)
    model = dense.open_model(dtype=dtype)
    return DenseModel(model, processor, params, max_length=bounds.max_length, seed=seed)
