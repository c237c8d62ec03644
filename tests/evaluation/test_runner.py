from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from evaluation.heldout_schema import SCHEMA
from evaluation.judge_server import judge_server
from evaluation.published_rows import write_parquet
from models import rows

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.evaluation.run.evaluate import evaluate
from interlace.evaluation.run.validate import validate
from interlace.evaluation.scores.answers import read_answers
from interlace.params.evaluating import Evaluate, Judge

Write = Callable[[list[dict[str, Any]]], Path]


def test_checks_import_neither_torch_nor_lmms_eval(write_rows: Write) -> None:
    code = (
        "import sys; from interlace.evaluation.run.validate import validate;"
        "from interlace.evaluation.scores.retention import relative_performance;"
        "from interlace.params.evaluating import Evaluate;"
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
        ({"benchmarks": ["POPE"], "data": "nowhere"}, "data = nowhere: no such folder"),
        ({"judged": ["nowhere.parquet"]}, "judged = nowhere.parquet: no such file"),
        ({"heldout": "a", "judge": {"url": "here", "model": "m"}}, "'here': not an address"),
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
    for name in ("MIABench", "HRBench4K"):
        write_parquet(name, tmp_path / f"data/{name}.parquet", 4)
    params = Evaluate(
        benchmarks=("MIA-Bench", "HRBench4K"),
        data=str(tmp_path / "data"),
        heldout=str(path),
        batch_size=4,
        max_new_tokens=3,
    )
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    environment, drawn = dict(os.environ), (random.getstate()[1], torch.get_rng_state())
    array = np.random.get_state()[1].copy()
    answers = [tmp_path / "1.parquet", tmp_path / "2.parquet"]
    found = evaluate(
        Checkpoint(model_dir), params=params, model_name="dense", answers_file=answers[0]
    )

    counts = {name: score.n for name, score in found.scores.items()}
    assert counts == {"HRBench4K": 4, "a": 4, "b": 7}
    assert set(found.skipped) == {"MIABench"}
    assert "no judge is configured" in found.skipped["MIABench"]
    assert "names no option is wrong" in found.notes["HRBench4K"]
    assert (found.model, found.device, found.dtype) == ("dense", "cpu", "float32")
    assert set(found.versions) == {"torch", "transformers", "lmms_eval"}
    written = json.dumps(found.as_json())
    assert str(tmp_path) not in written
    assert str(model_dir) not in written
    again = evaluate(
        Checkpoint(model_dir), params=params, model_name="dense", answers_file=answers[1]
    )
    assert json.dumps(again.as_json()) == written
    assert answers[0].read_bytes() == answers[1].read_bytes()
    counted = Counter(answer.benchmark for answer in read_answers(answers[0]))
    assert counted == counts

    assert not list(Path.cwd().iterdir())
    assert dict(os.environ) == environment
    assert random.getstate()[1] == drawn[0]
    assert torch.equal(torch.get_rng_state(), drawn[1])
    assert (np.random.get_state()[1] == array).all()
    assert capsys.readouterr().out == ""


def test_judged_benchmarks_without_a_judge_are_skipped_and_named(
    model_dir: Path, write_rows: Write
) -> None:
    path = write_rows(rows(2, source="open"))
    with pytest.raises(InputError, match="be scored without a judge; set"):
        validate(Evaluate(judged=(str(path),)))
    held = write_rows(rows(2, source="closed"), "held.parquet")
    params = Evaluate(heldout=str(held), judged=(str(path),), max_new_tokens=2)
    found = evaluate(Checkpoint(model_dir), params=params, model_name="dense")
    assert set(found.scores) == {"closed"}
    assert "no judge is configured" in found.skipped["open"]


def test_a_judge_behind_an_endpoint_grades_and_is_not_asked_twice(
    model_dir: Path, write_rows: Write, tmp_path: Path
) -> None:
    made = rows(4, source="open")
    right = f"\n{made[0]['texts'][-1]['assistant']}\n"

    def reply(prompt: str) -> str:
        if "You grade" in prompt:
            return "CORRECT" if right in prompt else "INCORRECT"
        return "total score: 5/10"

    write_parquet("MIABench", tmp_path / "data/MIABench.parquet", 4)
    with judge_server(reply) as server:
        params = Evaluate(
            benchmarks=("MIABench",),
            data=str(tmp_path / "data"),
            judged=(str(write_rows(made)),),
            judge=Judge(url=server.url, model="m"),
            max_new_tokens=2,
        )
        kept = {"params": params, "model_name": "dense", "judgements": tmp_path / "judgements"}
        found = evaluate(Checkpoint(model_dir), **kept)
        asked = len(server.requests)
        assert evaluate(Checkpoint(model_dir), **kept) == found
    assert {name: score.score for name, score in found.scores.items()} == {
        "MIABench": 50,
        "open": 25,
    }
    assert asked == len(server.requests) == 8
    assert server.url not in json.dumps(found.as_json())


KILLED = """
import os, signal, sys
from pathlib import Path
from interlace.checkpoint.checkpoint import Checkpoint
from interlace.evaluation.run.evaluate import evaluate
from interlace.evaluation.run.journal import Journal
from interlace.params.evaluating import Evaluate
saved, save = [], Journal.save
def save_then_die(self, answers, process):
    save(self, answers, process)
    saved.append(answers)
    if len(saved) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.save = save_then_die
params = Evaluate.model_validate_json(sys.argv[1])
evaluate(Checkpoint(Path(sys.argv[2])), params=params, model_name="m", scratch=Path(sys.argv[3]))
"""


def test_a_killed_evaluation_goes_on_at_the_sample_where_it_was(
    model_dir: Path, write_rows: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interlace.evaluation.run.journal import Journal

    params = Evaluate(heldout=str(write_rows(rows(11))), batch_size=3, max_new_tokens=3)
    scratch, whole = tmp_path / "scratch", tmp_path / "whole.parquet"
    evaluate(Checkpoint(model_dir), params=params, model_name="m", answers_file=whole)
    arguments = [params.model_dump_json(), str(model_dir), str(scratch)]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert len(Journal(scratch).read()) == 6

    made: list[Any] = []
    monkeypatch.setattr(Journal, "save", lambda self, answers, process: made.append(answers))
    resumed = tmp_path / "resumed.parquet"
    evaluate(
        Checkpoint(model_dir), params=params, model_name="m", answers_file=resumed, scratch=scratch
    )
    assert sum(map(len, made)) == 5
    assert resumed.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_processes(
    model_dir: Path, write_rows: Write, tmp_path: Path
) -> None:
    from interlace.evaluation.run.isolation import isolated
    from interlace.model.chat import chat_messages, encode_messages

    made = rows(9, source="a") + rows(4, source="b")
    with isolated(offline=True):
        from interlace.evaluation.run.adapter import open_adapter

        adapter = open_adapter(Checkpoint(model_dir), batch_size=4)
        for asked in made[::2]:  # half of the true answers are the model's own
            answer = adapter._generate(
                [encode_messages(adapter.processor, chat_messages(asked)[:-1])],
                [{"max_new_tokens": 3}],
            )
            asked["texts"][-1]["assistant"] = answer[0]
    path = write_rows(made)
    params = Evaluate(heldout=str(path), batch_size=1, max_new_tokens=3)
    one, scratch = tmp_path / "one.parquet", tmp_path / "scratch"
    folder, rank = f"Path({str(tmp_path)!r})", "os.environ['RANK']"
    alone = evaluate(Checkpoint(model_dir), params=params, model_name="m", answers_file=one)
    assert 0 < alone.scores["a"].score < 100

    script = tmp_path / "script.py"
    script.write_text(
        "import json, os\n"
        "from pathlib import Path\n"
        "from interlace.checkpoint.checkpoint import Checkpoint\n"
        "from interlace.evaluation.run.evaluate import evaluate\n"
        "from interlace.params.evaluating import Evaluate\n"
        f"params = Evaluate.model_validate_json({params.model_dump_json()!r})\n"
        f"found = evaluate(Checkpoint(Path({str(model_dir)!r})), params=params, model_name='m',\n"
        f"    answers_file={folder} / ({rank} + '.parquet'), scratch={folder} / 'scratch')\n"
        f"({folder} / {rank}).write_text(json.dumps(found.as_json()))\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    root = str(Path(__file__).parents[2])
    subprocess.run(
        [*torchrun, "--nproc-per-node", "2", str(script)],
        check=True,
        env=os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )
    for process in "01":
        assert json.loads((tmp_path / process).read_text()) == alone.as_json()
    assert (tmp_path / "0.parquet").read_bytes() == one.read_bytes()
    assert not (tmp_path / "1.parquet").exists()
    shares = [(scratch / f"answers-{i}.jsonl").read_text().count("{") for i in "01"]
    assert shares == [8, 5]
