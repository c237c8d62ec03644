"""What each stage reads of params.yaml.

A stage sees its own part and nothing else, so that it cannot depend on a value that DVC does not
track for it.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import Field

from interlace.errors import InputError
from interlace.params.budget import BudgetParams
from interlace.params.choosing import (
    ReferencePlanParams,
    Select,
    SelectParams,
)
from interlace.params.evaluating import EvaluateParams
from interlace.params.exporting import Export, ExportParams
from interlace.params.healing import FinetuneParams
from interlace.params.inputs import Model, SampleParams
from interlace.params.measuring import (
    CollectParams,
    Sensitivity,
    SensitivityParams,
)
from interlace.params.section import S, validated
from interlace.params.timing import TtftParams


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
