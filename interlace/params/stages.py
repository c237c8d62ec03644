"""What each stage reads of params.yaml.

A stage sees its own part and nothing else, so that it cannot depend on a value that DVC does not
track for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field

from interlace.errors import InputError
from interlace.params.choosing import Budget, Method, Protection, Ratio, Select
from interlace.params.evaluating import Evaluate, Ttft
from interlace.params.exporting import Compensation, Export
from interlace.params.healing import Finetune, Recipe, Reference
from interlace.params.inputs import Data, Model, Probes
from interlace.params.measuring import Answers, Collect, Sensitivity
from interlace.params.section import S, Section, validated

Seed = Annotated[int, Field(0, ge=0, description="seed of every random draw")]


class SampleParams(Section):
    """`sample`: draw the training and calibration sets."""

    seed: Seed
    data: Data
    probes: Probes = Probes()


class CollectParams(Section):
    """`collect`: measure how layers change the hidden states."""

    collect: Collect = Collect()


class SensitivityParams(Section):
    """`sensitivity`: measure what sleb or taylor needs; nothing for other methods."""

    method: Method
    select: Protection = Protection()
    sensitivity: Sensitivity = Sensitivity()


class ScoreParams(Section):
    """`score`: average the measurements."""


class BudgetParams(Section):
    """`budget`: find how many layers `ratio: auto` drops; nothing for a ratio that is given."""

    ratio: Ratio
    method: Method
    seed: Seed
    select: Select = Select()
    sensitivity: Sensitivity = Sensitivity()
    ttft: Ttft = Ttft()
    budget: Budget = Budget()


class RoundsParams(Section):
    """`rounds`: prune in steps and measure again; nothing for a single round."""

    ratio: Ratio
    method: Method
    seed: Seed
    select: Select = Select()
    collect: Collect = Collect()
    sensitivity: Answers = Answers()
    export: Compensation = Compensation()
    finetune: Finetune = Finetune()


class SelectParams(Section):
    """`select`: decide which layers go."""

    ratio: Ratio
    method: Method
    seed: Seed
    select: Select = Select()


class ExportParams(Section):
    """`export`: write the pruned checkpoint."""

    sensitivity: Answers = Answers()
    export: Export = Export()


class FinetuneParams(Section):
    """`finetune`: heal the pruned model."""

    seed: Seed
    finetune: Finetune = Finetune()


class ReferencePlanParams(Section):
    """`reference_plan`: say which layers of the dense model the reference run tunes."""

    ratio: Ratio
    reference: Reference


class ReferenceParams(Section):
    """`reference`: tune the dense model by the same recipe."""

    seed: Seed
    finetune: Recipe = Recipe()


class EvaluateParams(Section):
    """`evaluate`: score one model on the benchmarks."""

    evaluate: Evaluate = Evaluate()


class TtftParams(Section):
    """`ttft`: time the dense and the tuned model side by side."""

    seed: Seed
    ttft: Ttft = Ttft()


class PinParams(
    SampleParams,
    CollectParams,
    SensitivityParams,
    BudgetParams,
    SelectParams,
    ExportParams,
    FinetuneParams,
    ReferencePlanParams,
    EvaluateParams,
    TtftParams,
):
    """`pin`: check everything that can be checked, and pin the model and the data."""

    sensitivity: Sensitivity = Sensitivity()
    select: Select = Select()
    export: Export = Export()
    model: Model
    launch: str = Field(
        "python -m", description="command prefix of collect, finetune, reference and evaluate"
    )


class ReportParams(PinParams):
    """`report`: gather the numbers; the model card embeds every parameter."""


Params = PinParams  # all of them


def read_params(path: Path) -> Params:
    """Read and check a whole parameter file.

    Raises:
        InputError: the file is missing, is not YAML, or a value in it is not allowed.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; copy params.yaml or one from profiles/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable text file ({error})") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return validated(Params, values, str(path))


def part(whole: Params, model: type[S]) -> S:
    """The part of all parameters that one stage may read."""
    return model.model_validate({name: getattr(whole, name) for name in model.model_fields})
