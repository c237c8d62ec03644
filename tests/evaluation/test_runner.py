from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from evaluation.heldout_schema import SCHEMA
from models import rows

from interlace.errors import InputError
from interlace.evaluation import evaluate, validate
from interlace.params import Evaluate

Write = Callable[[list[dict[str, Any]]], Path]


def test_checks_import_neither_torch_nor_lmms_eval(write_rows: Write) -> None:
    code = (
        "import sys; from interlace.evaluation import validate, relative_performance;"
        "from interlace.params import Evaluate;"
        f"validate(Evaluate(benchmarks=['POPE'], heldout={str(write_rows(rows(3)))!r}));"
        "assert not {'torch', 'transformers', 'lmms_eval'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "nothing to evaluate on"),
        ({"benchmarks": ["OCRBensch"]}, "'OCRBensch': no such benchmark; did you mean 'OCRBench'"),
        ({"benchmarks": ["POPE", "pope"]}, "named twice: POPE"),
        ({"benchmarks": ["OCRBench"], "limit": 5}, "limit = 5: OCRBench divides by"),
        ({"heldout": "nowhere.parquet"}, "heldout = nowhere.parquet: no such file"),
    ],
)
def test_mistakes_are_named_before_anything_is_loaded(given: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        validate(Evaluate(**given))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def table(**columns: Any) -> pa.Table:
    good = pa.Table.from_pylist(rows(3, source="a"), schema=SCHEMA)
    for name, values in columns.items():
        place = good.schema.get_field_index(name)
        good = good.remove_column(place)
        if values is not None:
            good = good.append_column(name, values)
    return good


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (table(source=None), "column 'source' is missing"),
        (table(source=pa.array([1, 2, 3])), "column 'source' is int64, not string"),
        (
            table(texts=pa.array(["", "", ""])),
            "column 'texts' is string, not list",
        ),
        (table(images=pa.array([["a.png"]] * 3)), "column 'images' is list<element: string>"),
        (table(source=pa.array(["a", None, "a"])), "row 1, column 'source': empty"),
        (
            table(texts=pa.array([[], [], []], SCHEMA.field("texts").type)),
            "row 0, column 'texts': no turn",
        ),
        (
            table(
                texts=pa.array(
                    [[{"user": "a", "assistant": "b"}]] * 2 + [[{"user": "a", "assistant": None}]],
                    SCHEMA.field("texts").type,
                )
            ),
            "row 2, column 'texts': turn 0 has an empty assistant text",
        ),
        (table().slice(0, 0), "no rows"),
    ],
)
def test_a_malformed_file_is_named_with_column_and_row(
    made: pa.Table, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.parquet"
    pq.write_table(made, path)
    with pytest.raises(InputError) as error:
        validate(Evaluate(heldout=str(path)))
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def test_a_file_that_is_not_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.parquet"
    path.write_text("not parquet")
    with pytest.raises(InputError, match=f"{path}: not a Parquet file"):
        validate(Evaluate(heldout=str(path)))


def test_a_file_without_any_image_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "text.parquet"
    pq.write_table(table(images=pa.nulls(3)), path)
    validate(Evaluate(heldout=str(path)))


def test_evaluation_of_a_checkpoint(
    model_dir: Path, write_rows: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path = write_rows(rows(7, source="b") + rows(4, source="a"))
    params = Evaluate(
        benchmarks=("MIA-Bench", "HRBench4K"), heldout=str(path), batch_size=4, max_new_tokens=3
    )
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    environment, drawn = dict(os.environ), (random.getstate()[1], torch.get_rng_state())
    array = np.random.get_state()[1].copy()
    found = evaluate(model_dir, params=params, model_name="dense")

    assert {name: score["n"] for name, score in found["scores"].items()} == {"a": 4, "b": 7}
    assert set(found["skipped"]) == {"MIABench", "HRBench4K"}
    assert "no judge is configured" in found["skipped"]["MIABench"]
    assert (found["model"], found["device"], found["dtype"]) == ("dense", "cpu", "float32")
    assert set(found["versions"]) == {"torch", "transformers", "lmms_eval"}
    written = json.dumps(found)
    assert str(tmp_path) not in written
    assert str(model_dir) not in written
    assert json.dumps(evaluate(model_dir, params=params, model_name="dense")) == written

    assert not list(Path.cwd().iterdir())
    assert dict(os.environ) == environment
    assert random.getstate()[1] == drawn[0]
    assert torch.equal(torch.get_rng_state(), drawn[1])
    assert (np.random.get_state()[1] == array).all()
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_processes(
    model_dir: Path, write_rows: Write, tmp_path: Path
) -> None:
    from interlace.chat import chat_messages, encode_messages
    from interlace.evaluation.isolation import isolated

    made = rows(9, source="a") + rows(4, source="b")
    with isolated(offline=True):
        from interlace.evaluation.adapter import open_adapter

        adapter = open_adapter(model_dir, batch_size=4)
        for asked in made[::2]:  # half of the true answers are the model's own
            answer = adapter._generate(
                [encode_messages(adapter.processor, chat_messages(asked)[:-1])],
                [{"max_new_tokens": 3}],
            )
            asked["texts"][-1]["assistant"] = answer[0]
    path = write_rows(made)
    params = Evaluate(heldout=str(path), batch_size=4, max_new_tokens=3)
    alone = evaluate(model_dir, params=params, model_name="m")
    assert 0 < alone["scores"]["a"]["score"] < 100

    script = tmp_path / "script.py"
    script.write_text(
        "import json, os\n"
        "from interlace.evaluation import evaluate\n"
        "from interlace.params import Evaluate\n"
        f"params = Evaluate.model_validate_json({params.model_dump_json()!r})\n"
        f"found = evaluate({str(model_dir)!r}, params=params, model_name='m')\n"
        f"open({str(tmp_path)!r} + '/' + os.environ['RANK'], 'w').write(json.dumps(found))\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    root = str(Path(__file__).parents[2])
    subprocess.run(
        [*torchrun, "--nproc-per-node", "2", str(script)],
        check=True,
        env=os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )
    for rank in "01":
        assert json.loads((tmp_path / rank).read_text()) == alone
