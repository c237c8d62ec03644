"""The scores of one model, as `artifacts/evaluation/MODEL.json` holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from interlace.system.documents import read_record


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Score(_Result):
    """The score of one model on one benchmark.

    Attributes:
        score: 0 to 100.
        standard_error: of `score`; None for a single question.
        n: rows that count; questions, where a question counts if all its rows are right.
        category: of the benchmark.
        missing: rows without a judgement, which count nowhere.
    """

    score: float
    standard_error: float | None
    n: int
    category: str
    missing: int = 0


class Loss(_Result):
    """The loss of one model on true answers.

    Attributes:
        loss: nats per answer token.
        standard_error: of `loss`, with questions as clusters; None for a single question.
        tokens: number of answer tokens.
    """

    loss: float
    standard_error: float | None
    tokens: int


class ServingEngine(_Result):
    """Servers that answered, in place of a model that was opened here.

    Attributes:
        name: as `evaluate.engine` has it.
        version: of the server; `None`: it tells none.
        command: that started it, without folders; `None`: the user started it.
    """

    name: str
    version: str | None = None
    command: str | None = None


class Reasoning(_Result):
    """The way that benchmarks were answered with reasoning: by VLMEvalKit's prompts, sampled.

    Attributes:
        max_new_tokens: longest answer, tokens.
        temperature: of sampling, as the following; see `model.sampling.Sampling`.
        seed: of the answers.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    presence_penalty: float
    seed: int


class Evaluation(_Result):
    """The scores of one model; the same model, data and libraries give the same content.

    Attributes:
        model: its name, e.g. "pruned".
        scores: by benchmark.
        skipped: benchmark -> why it has no score.
        versions: of the libraries.
        device: that the model ran on; `None`: servers answered.
        dtype: of the model's weights; `None`: servers answered.
        notes: benchmark -> what to know about its score.
        losses: by held-out source.
        loss: over the tokens of all held-out sources; None without one.
        engine: the servers that answered; `None`: the model was opened here.
        weights: digest of the checkpoint's folder; `None` of the dense model, which `pin` pins.
        reasoning: how benchmarks were answered; `None`: directly, by lmms-eval's prompts, greedily.
    """

    model: str
    scores: dict[str, Score]
    skipped: dict[str, str]
    versions: dict[str, str]
    device: str | None = None
    dtype: str | None = None
    notes: dict[str, str] = {}
    losses: dict[str, Loss] = {}
    loss: Loss | None = None
    engine: ServingEngine | None = None
    reasoning: Reasoning | None = None
    weights: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain values for JSON; fields with defaults only where there is a value."""
        return self.model_dump(mode="json", exclude_defaults=True)


def read_evaluation(path: Path) -> Evaluation:
    """Read the scores that `evaluate` wrote.

    Raises:
        InputError: the file is missing, or is not an evaluation.
    """
    evaluation: Evaluation = read_record(path, Evaluation)
    return evaluation
