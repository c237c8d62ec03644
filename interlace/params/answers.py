"""Parameters of the answers to train on: the data's own, or the dense model's."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from interlace.params.section import Dtype, Section, Seed
from interlace.params.served import ServedModel

ENDPOINT = "answers.endpoint"  # the section, in messages


class ServedDense(ServedModel):
    """The dense model behind an endpoint, for models that are served better than opened here."""

    concurrency: int = Field(
        8, ge=1, le=4096, description="requests at the same time of each process, requests"
    )


class OwnAnswers(Section):
    """Answers to train on; those of the dense model keep healing from teaching anything new."""

    source: Literal["labels", "dense"] = Field(
        "labels",
        description="answers to train on; labels: the data's own; dense: the dense model's, to the"
        " same prompts",
    )
    samples: int | None = Field(
        None,
        ge=1,
        description="prompts to answer and train on, samples, chosen at random; none: all",
    )
    max_new_tokens: int = Field(
        512, ge=1, description="longest answer, tokens; longer ones are cut, kept and counted"
    )
    temperature: float = Field(
        0.0,
        ge=0,
        le=100,
        description="0: greedy; else answers are sampled with `seed`, from logits divided by this",
    )
    batch_tokens: int = Field(
        32768,
        ge=1,
        description="padded tokens per batch, prompts and longest answers together, tokens",
    )
    max_empty: float = Field(
        0.02, ge=0, le=1, description="share of answers that may be empty; more stop the run"
    )
    endpoint: ServedDense = Field(
        ServedDense(),
        description="where the dense model is served; none: it is opened here",
    )

    @model_validator(mode="after")
    def _endpoint_is_asked(self) -> OwnAnswers:
        if self.endpoint.url is not None and self.source == "labels":
            raise ValueError(
                "endpoint.url is set and source = labels, so nothing is asked there; set source to"
                " dense, or leave endpoint.url empty"
            )
        return self

    @property
    def determining(self) -> OwnAnswers:
        """The options that answers depend on; the others may change when a run has stopped."""
        endpoint = self.endpoint.model_copy(update={"concurrency": 1})
        return self.model_copy(update={"max_empty": 0.0, "endpoint": endpoint})


class RowBounds(Section):
    """The bounds of training rows; `pin` takes them from `finetune`, a user does not set them."""

    min_pixels: int | None
    max_pixels: int | None
    max_length: int


class AnswersParams(Section):
    """`answers`: write the dense model's answers to the training prompts; none for labels."""

    seed: Seed
    dtype: Dtype
    answers: OwnAnswers = OwnAnswers()
