"""All parameters of params.yaml, and each stage's share of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from interlace.params.answers import AnswersParams, RowBounds
from interlace.params.budget import BudgetParams
from interlace.params.choosing import ReferencePlanParams, SelectParams
from interlace.params.evaluating import EvaluateParams
from interlace.params.inputs import Model, SampleParams
from interlace.params.rounds import RoundsParams
from interlace.params.section import Section, validated
from interlace.system.documents import read_yaml


class PinParams(
    SampleParams,
    AnswersParams,
    BudgetParams,
    RoundsParams,
    SelectParams,
    ReferencePlanParams,
    EvaluateParams,
):
    """`pin`: check everything that can be checked, and pin the model and the data."""

    model: Model
    launch: str = Field(
        "python -m",
        description="command prefix of collect, answers, candidates, finetune, reference and"
        " evaluate",
    )


class ReportParams(PinParams):
    """`report`: gather the numbers; the model card embeds every parameter."""


Params = PinParams  # all of them


def read_params(path: Path) -> Params:
    """Read and check a whole parameter file.

    Raises:
        InputError: the file is missing, is not YAML, or a value in it is not allowed.
    """
    return validated(Params, read_yaml(path), str(path))


def settings(params: Params) -> dict[str, Any]:
    """Return each section's values that differ from the defaults, for stages to depend on.

    A section that the user left out and one of defaults are the same here. `row_bounds` are values
    of `finetune` that a stage depends on apart from the others. Of `evaluate`, what answers do not
    depend on is left out, such as the addresses of servers.
    """
    params = params.model_copy(update={"evaluate": params.evaluate.determining})
    changed = params.model_dump(mode="json", exclude_defaults=True)
    sections = {
        name: changed.get(name, {} if isinstance(value, Section) else value)
        for name, value in params
    }
    bounds = _row_bounds(params)
    return sections | {"row_bounds": bounds and bounds.model_dump()}


def _row_bounds(params: Params) -> RowBounds | None:
    """Return the bounds of the rows that the dense model answers; `None` where it answers none.

    They are those of training: the answers to train on come from the same images.
    """
    if params.answers.source == "labels":
        return None
    return RowBounds(**params.finetune.model_dump(include=set(RowBounds.model_fields)))
