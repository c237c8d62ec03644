from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models import rows

from interlace.errors import InputError
from interlace.evaluation.run.validate import validate
from interlace.params.evaluating import Evaluate

Write = Callable[..., Path]
KEYLESS = {"url": "http://x", "model": "m", "key_variable": "NO_SUCH_KEY"}


def test_validation_imports_neither_torch_nor_lmms_eval(write_rows: Write) -> None:
    code = (
        "import sys\n"
        "from interlace.evaluation.run.validate import validate\n"
        "from interlace.evaluation.scores.retention import relative_performance\n"
        "from interlace.params.evaluating import Evaluate\n"
        f"validate(Evaluate(benchmarks=['POPE'], heldout={str(write_rows(rows(3)))!r}))\n"
        "assert not {'torch', 'transformers', 'lmms_eval', 'openai'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "nothing to evaluate on"),
        ({"benchmarks": ["OCRBensch"]}, r"'OCRBensch': no such benchmark; did you mean OCRBench"),
        ({"benchmarks": ["POPE", "pope"]}, "named twice: POPE"),
        ({"benchmarks": ["OCRBench"], "limit": 5}, "limit = 5: OCRBench"),
        ({"benchmarks": ["POPE"], "data": "nowhere"}, "data = nowhere: no such folder"),
        ({"benchmarks": ["mmbench v1.1"]}, "'MMBench-V1.1': its data is not on the hub"),
        ({"benchmarks": ["POPE", "AI2D", "pope f1"]}, "POPE and POPE-F1 are editions of one"),
        (
            {"heldout": "a", "answers": "reasoning"},
            r"answers = reasoning: nothing is answered so.*set evaluate\.benchmarks",
        ),
        ({"benchmarks": ["OCRBench-Enlarged"], "limit": 5}, "limit = 5: OCRBench-Enlarged"),
        ({"judged": ["nowhere.parquet"]}, r"judged = nowhere\.parquet: no such file"),
        ({"heldout": "nowhere.parquet"}, r"heldout = nowhere\.parquet: no such file"),
        (
            {"benchmarks": ["POPE"], "heldout_metric": "next-token"},
            r"heldout_metric = next-token: no rows to score; set evaluate\.heldout",
        ),
        ({"heldout": "a", "judge": {"url": "here"}}, r"judge\.url = 'here'"),
        ({"heldout": "a", "judge": {"url": "http://x"}}, r"judge\.model: empty"),
        ({"heldout": "a", "judge": KEYLESS}, r"judge\.key_variable = 'NO_SUCH_KEY'"),
        ({"benchmarks": ["MIABench"]}, r"without a judge; set evaluate\.judge\.url"),
    ],
)
def test_a_mistake_is_named_in_one_line(params: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        validate(Evaluate(**params))
    assert "\n" not in str(error.value)


def test_a_source_with_the_name_of_a_benchmark_is_refused(write_rows: Write) -> None:
    path = write_rows(rows(1, source="POPE"))
    with pytest.raises(InputError, match="named twice: POPE"):
        validate(Evaluate(benchmarks=("POPE",), heldout=str(path)))
