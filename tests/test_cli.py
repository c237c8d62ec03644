"""`interlace`, in a workspace with the results of a run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from report.report_cases import TTFT, evaluations, full_scores, plan, score_table

from interlace.cli import main
from interlace.methods.registry import METHODS
from interlace.plan.candidates import Losses, read_chosen, write_candidates
from interlace.report.facts.summary import summarise
from interlace.system.outputs import write_json


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words), catch_exceptions=False)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Scores and a plan; nothing evaluated yet."""
    monkeypatch.chdir(tmp_path)
    Path("artifacts").mkdir()
    scores = full_scores(24, 3, without="sleb")
    pq.write_table(score_table(scores), "artifacts/scores.parquet")
    write_json(Path("artifacts/plan.json"), plan().model_dump(mode="json"))
    return tmp_path


def test_show_prints_the_plan_and_what_is_not_there_yet(workspace: Path) -> None:
    other = summarise(
        evaluations(), TTFT, plan(ratio=0.1), parameters_before=10, parameters_after=8
    )
    write_json(Path("metrics/summary.json"), other)  # of another run, as committed
    output = run("show").output
    assert "interlace: 25% of 24 layers" in output
    assert "(image features are added after them)" in output  # why layers are protected
    assert "S_1 of the two" in output
    assert "benchmark" not in output
    assert "no summary of this plan: artifacts/pruned, artifacts/tuned" in output
    assert output.rstrip().endswith("not there yet; run the stages that follow, `report` last")


def test_show_prints_the_candidates_that_were_compared(workspace: Path) -> None:
    losses = [
        Losses(tokens=(2, 2), before=(4.0, 4.0), after=(3.0, 2.0)),
        Losses(tokens=(2, 2), before=(5.0, 6.0), after=(2.0, 2.0)),
    ]
    plans = [plan(), plan("shortgpt")]
    assert "over the chosen" not in run("show").output
    write_candidates(Path("artifacts/candidates"), plans, losses)
    chosen = read_chosen(Path("artifacts/candidates"))
    write_json(Path("artifacts/plan.json"), chosen.model_dump(mode="json"))
    output = run("show").output
    assert "shortgpt: 25% of 24 layers, best of 2 plans after healing" in output
    rows = [line.split() for line in output.splitlines()]
    assert ["2.000", "1.250", "+0.250", "\u00b1", "0.250"] in [row[-5:] for row in rows]
    assert ["2.750", "1.000", "chosen"] in [row[-3:] for row in rows]
    shutil.rmtree("artifacts/candidates")
    assert run("show").exit_code == 2


def test_methods_marks_the_measurements_that_exist(workspace: Path) -> None:
    rows = [line.split() for line in run("methods").output.splitlines()]
    marks = {row[0]: row[1] for row in rows if row and row[0] in METHODS}
    assert (marks["cka"], marks["interlace"], marks["sleb"]) == ("yes", "yes", "no")
    listed = " ".join(run("methods", "--ratio", "0.25").output.split())
    assert "sleb not measured; the stage `sensitivity` measures it, with method: sleb" in listed
    shutil.rmtree("artifacts")
    assert "shortgpt" in run("methods").output


@pytest.mark.parametrize("words", ["interlace.cli show", "stages.select --help"])
def test_a_terminal_that_is_not_utf_8_gets_all(workspace: Path, words: str) -> None:
    root = Path(__file__).parents[1]
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "0"}
    environment = os.environ | plain | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-m", *words.split()]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert done.stderr == b"" and len(done.stdout.decode("ascii")) > 500


def write_similarity(*domains: str) -> None:
    folder = Path("artifacts/hidden_states/similarity")
    folder.mkdir(parents=True)
    rows = [
        {"domain": domain, "task": domain, "first": layer, "span": 1, "cosine": 0.9}
        for domain in domains
        for layer in range(4)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "part-0.parquet")


@pytest.mark.parametrize(
    "words",
    [
        "similarity --out a.png",
        "similarity --scores A=artifacts/scores.parquet --out b.png",
        "removals --ratio 0.25 --out a.pdf",
        "layers --out a.svg",
        "probes --out a.png",
    ],
)
def test_draw_writes_the_figure(workspace: Path, words: str) -> None:
    write_similarity("math", "nonmath")
    assert run("draw", *words.split()).exit_code == 0
    assert Path(words.split()[-1]).stat().st_size > 4000


@pytest.mark.parametrize("words", ["draw layers --out artifacts", "compare --html artifacts"])
def test_a_folder_is_never_replaced_by_a_file(workspace: Path, words: str) -> None:
    assert "is a directory" in run(*words.split()).stderr
    assert Path("artifacts/plan.json").is_file()


def error_of(*words: str) -> str:
    """The message of a user's mistake, after checking that it is one line."""
    result = run(*words)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("show", "artifacts/plan.json: no such file; work in the folder of a run"),
        ("methods --ratio 0.25", "artifacts/scores.parquet: no such file"),
        ("draw layers --out a.png", "artifacts/plan.json: no such file"),
        ("draw probes --out a.png", "no measurements; work in the folder of a run"),
        ("draw similarity --scores x --out a.png", "write NAME=PATH"),
        ("draw removals --out a.png", "artifacts/scores.parquet: no such file"),
    ],
)
def test_a_missing_file_is_named_and_nothing_written(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in error_of(*words.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("methods --ratio 1.5", "ratio = 1.5: must be greater than 0"),
        ("draw layers --out a.gif", "a.gif: figures are written as png, svg, pdf"),
        ("draw similarity --scores A=a --scores A=b --out a.png", "each name once"),
        ("draw probes --out a.png", "set probes.per_task"),
        ("draw layers --out /proc/none/a.png", "/proc/none: No such file or directory"),
    ],
)
def test_a_wrong_value_is_named(workspace: Path, words: str, message: str) -> None:
    write_similarity("native")  # no probes
    assert message in error_of(*words.split())
