"""Generate a model's answers to prompts of similar length, greedily or by given random numbers.

B is the number of prompts in a batch, T the tokens of the longest, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from interlace.model.chat import Inputs, collate
from interlace.model.open import end_tokens, input_device
from interlace.model.sampling import GREEDY, Sampling

Draws = NDArray[np.float64]


class AnswerGenerator:
    """A model that answers batches of prompts, padded on the left.

    Settings of generation in the model's files, such as penalties, do not count: they would make
    answers that are not the model's own.

    Attributes:
        model: in evaluation mode, on its device.
        tokenizer: of its processor.
        end_ids: the tokens that end an answer.
        pad_id: the token to pad with.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self.tokenizer = processor.tokenizer
        self.end_ids = frozenset(end_tokens(model.generation_config, self.tokenizer))
        pad_id = self.tokenizer.pad_token_id
        self.pad_id = min(self.end_ids, default=0) if pad_id is None else pad_id
        model.generation_config = GenerationConfig(  # unset values would come from the checkpoint
            do_sample=False,
            num_beams=1,
            eos_token_id=sorted(self.end_ids) or None,
            pad_token_id=self.pad_id,
        )

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Inputs],
        longest: int,
        *,
        sampling: Sampling = GREEDY,
        draws: Draws | None = None,
    ) -> list[list[int]]:
        """Return the new tokens of each prompt, without the token that ends an answer.

        Args:
            prompts: encoded, without labels.
            longest: most new tokens; an answer of so many did not end.
            sampling: how tokens are chosen.
            draws: numbers from 0 to 1, [B, longest], one for each token to sample. A row's answer
                depends on its own numbers alone.
        """
        batch = {
            name: value.to(
                input_device(self.model), self.model.dtype if value.is_floating_point() else None
            )
            for name, value in collate(prompts, pad_token_id=self.pad_id, side="left").items()
        }
        start = batch["input_ids"].shape[1]
        processors = LogitsProcessorList()
        if sampling.presence_penalty:
            processors.append(PresencePenalty(sampling.presence_penalty, start))
        if sampling.temperature and draws is not None:
            processors.append(_Sampler(torch.from_numpy(draws), sampling, start))
        tokens = self.model.generate(  # [B, T + new]
            **batch, max_new_tokens=longest, logits_processor=processors
        )
        return [self.before_end(ids) for ids in tokens[:, start:].tolist()]

    def before_end(self, ids: Sequence[int]) -> list[int]:
        """Cut tokens before the first that ends an answer."""
        end = next((i for i, token in enumerate(ids) if token in self.end_ids), len(ids))
        return list(ids[:end])

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of an answer, up to the token that ends it."""
        return str(self.tokenizer.decode(self.before_end(ids), skip_special_tokens=True))


class PresencePenalty(LogitsProcessor):  # type: ignore[misc]
    """Takes a penalty once off the logit of each token that the answer holds already, as vLLM does.

    Args:
        penalty: nats.
        start: position of the answer's first token; tokens of the prompt do not count.
    """

    def __init__(self, penalty: float, start: int) -> None:
        self.penalty, self.start = penalty, start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the logits of the next token, [B, V]."""
        answer = input_ids[:, self.start :]  # [B, answer so far]
        in_answer = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, answer, True)  # [B, V]
        return torch.where(in_answer, scores - self.penalty, scores)


class _Sampler(LogitsProcessor):  # type: ignore[misc]
    """Leaves one token possible: the one at a given share of the cumulative distribution.

    That is sampling by the inverse of the distribution function. Unlike `do_sample`, it takes the
    random numbers of a row from that row, whatever other rows are in the batch.
    """

    def __init__(self, draws: Tensor, sampling: Sampling, start: int) -> None:
        self.draws, self.temperature, self.start = draws, sampling.temperature, start
        self.bounds = LogitsProcessorList()  # in transformers' order, which is vLLM's
        if sampling.top_k:
            self.bounds.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            self.bounds.append(TopPLogitsWarper(sampling.top_p))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1] - self.start
        draw = self.draws[:, step : step + 1].to(scores.device)  # [B, 1]
        logits = self.bounds(input_ids, scores.double() / self.temperature)  # [B, V]
        cumulative = logits.softmax(-1).cumsum(-1)
        tokens = torch.searchsorted(cumulative, draw * cumulative[:, -1:], right=True)  # [B, 1]
        tokens_in_range = tokens.clamp_(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens_in_range, 0.0)
