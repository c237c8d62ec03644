"""The twelve published benchmarks on made-up rows in their real schemas, without a network."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluation.published_rows import MADE, N, rows_of, write_all, write_parquet

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.evaluation.benchmarks.catalogue import BENCHMARKS
from interlace.evaluation.run.judge import Endpoint
from interlace.evaluation.scores.answers import Answer, benchmark_score
from interlace.params.evaluating import Judge

pytestmark = pytest.mark.usefixtures("lmms_eval")

NAMES = list(BENCHMARKS)
UNJUDGED = [name for name in NAMES if name != "MIABench"]
Reply = Callable[[dict[str, Any], int], str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("data"))


def task(name: str, data: Path, judge: Endpoint | None = None, longest: int = 5) -> Any:
    from interlace.evaluation.run.tasks import published_task

    return published_task(
        BENCHMARKS[name], max_new_tokens=longest, data=data, cache=data / ".cache", judge=judge
    )


def answered(name: str, data: Path, answer: Reply, judge: Any = None) -> list[Answer]:
    from evaluation.fake_model import FakeModel

    from interlace.evaluation.run.answering import answer_tasks

    found = answer_tasks(FakeModel(answer), [task(name, data, judge)])
    assert list(found) == [name]
    return found[name]


def right(name: str, until: int = N) -> Reply:
    """Right answers to the first rows, then answers that name no option and no number."""
    return lambda row, place: MADE[name].right(row) if place < until else "qqq"


class StubJudge:
    """Says one thing, or nothing at all."""

    def __init__(self, says: str | None) -> None:
        self.says = says
        self.asked: list[str] = []

    def ask(self, prompt: str, *, accepted: Any, max_tokens: int = 0) -> str | None:
        self.asked.append(prompt)
        return self.says if self.says and accepted(self.says) else None


@pytest.mark.parametrize("name", UNJUDGED)
def test_right_answers_score_and_meaningless_ones_do_not(name: str, data: Path) -> None:
    answers = answered(name, data, right(name, until=4))
    assert [answer.score for answer in answers[4:]] == [0, 0]
    full = 1.0 if name != "TextVQA" else 0.9333
    assert [answer.score for answer in answers[:4]] == pytest.approx([full] * 4, abs=0.1)
    assert all(answer.prompt and answer.target for answer in answers)
    assert len({answer.sample_id for answer in answers}) == N


@pytest.mark.parametrize(
    ("name", "until"),
    [
        (name, until)
        for name in UNJUDGED
        for until in (3, N)
        if "HR" not in name and (name, until) != ("OCRBench", N)  # it adds up all of a process
    ],
)
def test_scores_are_those_that_lmms_eval_itself_gives(
    name: str, until: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lmms_eval.tasks
    from evaluation.fake_model import FakeModel
    from lmms_eval.evaluator import simple_evaluate

    def answer(row: dict[str, Any], place: int) -> str:
        said = right(name, until)(row, place)
        return said.strip(".").lower() if name == "POPE" else said  # it knows no "Yes."

    monkeypatch.chdir(tmp_path)
    made = task(name, data)
    found = simple_evaluate(
        model=FakeModel(answer),
        tasks=[made.task],
        task_manager=lmms_eval.tasks.TaskManager(include_defaults=False),
        bootstrap_iters=0,
        log_samples=False,
        process_docs_parallel=1,
        distributed_executor_backend="torchrun",
        cli_args=argparse.Namespace(output_path=str(tmp_path), process_with_media=False),
    )["results"][made.task.config.task]
    metric = BENCHMARKS[name].metric
    theirs = next(value for key, value in found.items() if key.split(",")[0] == metric)
    if name == "OCRBench":
        theirs *= 1000 / N  # it counts on all of its rows
    if name not in ("MMBench", "VStar"):
        theirs *= 100
    ours = benchmark_score(answered(name, data, answer), "c")
    assert ours and ours.score == pytest.approx(theirs)


def test_the_published_rows_of_hrbench_weigh_as_lmms_eval_weighs_them(data: Path) -> None:
    answers = answered("HRBench4K", data, right("HRBench4K", until=3))
    results = [
        {"cycle_category": row["cycle_category"], "gpt_score": answer.score}
        for row, answer in zip(rows_of("HRBench4K"), answers, strict=True)
    ]
    aggregate = task("HRBench4K", data).task.aggregation()["average"]
    ours = benchmark_score(answers, "c")
    assert ours and ours.score == pytest.approx(100 * aggregate(results, None))


@pytest.mark.parametrize("said", ["Yes.", "yes", " YES, there is a dog.", "**Yes**"])
def test_pope_takes_every_way_to_say_yes(said: str, data: Path) -> None:
    answers = answered("POPE", data, lambda row, place: said)
    assert [answer.score for answer in answers] == [0, 1] * 3


@pytest.mark.parametrize("said", ["Yesterday", "not yes", ""])
def test_pope_takes_nothing_else_for_yes(said: str, data: Path) -> None:
    assert {answer.score for answer in answered("POPE", data, lambda row, place: said)} == {0}


def test_hrbench_survives_an_answer_that_names_no_option_and_counts_it_as_wrong(
    data: Path,
) -> None:
    answers = answered("HRBench8K", data, lambda row, place: "I see nothing")
    assert [answer.score for answer in answers] == [0] * N


def test_hrbench_asks_a_judge_only_what_it_cannot_read(data: Path) -> None:
    judge = StubJudge("A")
    answers = answered("HRBench4K", data, right("HRBench4K", until=4), judge)
    rows = rows_of("HRBench4K")
    assert len(judge.asked) == 2
    assert "flag 2" in judge.asked[0]
    assert [answer.score for answer in answers[4:]] == [float(r["answer"] == "A") for r in rows[4:]]


@pytest.mark.parametrize("says", [None, "I cannot say"])
@pytest.mark.parametrize("name", ["HRBench4K", "MIABench"])
def test_a_failed_judgement_is_missing_and_not_wrong(
    name: str, says: str | None, data: Path
) -> None:
    answers = answered(
        name, data, right("HRBench4K", until=4 if "HR" in name else 0), StubJudge(says)
    )
    score = benchmark_score(answers, "c")
    if name == "MIABench":
        assert score is None
    else:
        assert score and (score.score, score.n, score.missing) == (100, 4, 2)


def test_mia_bench_takes_the_judges_total(data: Path) -> None:
    judge = StubJudge("score of component 1: 3/10, total score: 3/10. It rhymes.")
    answers = answered("MIABench", data, lambda row, place: "A dog.", judge)
    assert {answer.score for answer in answers} == {0.3}
    assert sorted(asked.split("Describe picture ")[1][0] for asked in judge.asked) == list("012345")
    assert all("A dog." in asked for asked in judge.asked)


def test_mmbench_counts_a_question_if_each_order_of_its_options_is_right(data: Path) -> None:
    answers = answered("MMBench", data, right("MMBench", until=3))
    assert [answer.question_id for answer in answers] == ["200", "200", "201", "201", "202", "202"]
    score = benchmark_score(answers, "c")
    assert score and score.score == pytest.approx(100 / 3)
    assert score.n == 3


def test_an_answer_that_names_no_option_is_never_drawn_at_random(data: Path) -> None:
    for name in ("MMBench", "HRBench4K", "RealWorldQA", "VStar"):
        for said in ("", "no idea", "qqq"):
            answers = answered(name, data, lambda row, place, said=said: said)
            assert {answer.score for answer in answers} == {0}, (name, said)


@pytest.mark.parametrize(
    "thought", ["<think>Not {wrong}.</think>\n", "It is {wrong}.\n</think>\n\n"]
)
def test_reasoning_is_kept_and_does_not_count(thought: str, data: Path) -> None:
    def answer(row: dict[str, Any], place: int) -> str:
        wrong = "ABCD"[(int(row["answer"]) + 1) % 4]
        return thought.format(wrong=f"{wrong}. it is") + MADE["AI2D"].right(row)

    answers = answered("AI2D", data, answer)
    assert {answer.score for answer in answers} == {1}
    assert all("</think>" in answer.answer for answer in answers)


def test_nothing_is_written_to_the_working_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OCRBench", "TextVQA", "MMBench"):
        answered(name, data, right(name))
    assert not list(tmp_path.iterdir())


def test_ocrbench_scores_the_same_however_often_it_is_run(data: Path) -> None:
    first, again = (
        benchmark_score(answered("OCRBench", data, right("OCRBench")), "c") for _ in "ab"
    )
    assert first == again
    assert first and first.score == 100


def test_the_adapter_answers_all_twelve(data: Path, model_dir: Path) -> None:
    from interlace.evaluation.run.adapter import open_adapter
    from interlace.evaluation.run.answering import answer_tasks

    adapter = open_adapter(Checkpoint(model_dir), batch_size=8)
    found = answer_tasks(adapter, [task(name, data, StubJudge(None)) for name in NAMES], limit=3)
    assert {name: len(answers) for name, answers in found.items()} == dict.fromkeys(NAMES, 3)


@pytest.mark.parametrize("longest", [50, 16384])
def test_both_lengths_of_answers_hold_for_all_twelve(longest: int, data: Path) -> None:
    from evaluation.fake_model import FakeModel

    from interlace.evaluation.run.answering import answer_tasks

    model = FakeModel(lambda row, place: "First, I look.\n\nYes")
    tasks = [task(name, data, StubJudge(None), longest) for name in NAMES]
    found = answer_tasks(model, tasks, limit=1)
    assert [setting["max_new_tokens"] for setting in model.settings] == [longest] * len(NAMES)
    assert all("\n\n" not in setting["until"] for setting in model.settings)
    assert all("Yes" in answers[0].answer for answers in found.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_benchmarks_says_what_lmms_eval_says(name: str) -> None:
    from interlace.evaluation.run.tasks import definition

    benchmark, config = BENCHMARKS[name], definition(BENCHMARKS[name])
    assert benchmark.metric in {metric["metric"] for metric in config["metric_list"]}
    assert benchmark.split == config["test_split"]
    assert benchmark.configuration == config.get("dataset_name")


def test_data_that_cannot_be_had_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmms_eval.api.task import ConfigurableTask

    from interlace.evaluation.run.tasks import published_task

    monkeypatch.setattr(ConfigurableTask.download.retry, "sleep", lambda seconds: None)
    monkeypatch.setattr(
        "lmms_eval.api.task._resolve_hf_datasets_cache_dir", lambda: str(tmp_path / "cache")
    )
    with pytest.raises(InputError, match="'POPE': cannot open its data"):
        published_task(BENCHMARKS["POPE"], max_new_tokens=5)


def test_an_image_without_the_hubs_types_is_still_an_image(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = write_parquet("AI2D", tmp_path / "AI2D.parquet")
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    answers = answered("AI2D", tmp_path, right("AI2D"))
    assert {answer.score for answer in answers} == {1}


def test_a_judge_is_no_part_of_a_benchmark_that_needs_none(data: Path) -> None:
    assert not task("POPE", data, Endpoint(Judge(url="http://nowhere", model="m"))).judged
