"""The twelve published benchmarks on made-up rows with the catalogue's columns; no network."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from evaluation.published_rows import N, published_rows, write_parquet

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.evaluation.benchmarks.catalogue import BENCHMARKS
from interlace.evaluation.run.scoring import target
from interlace.evaluation.scores.answers import Answer, benchmark_score
from interlace.params.evaluating import Evaluate
from interlace.samples.order import answer_seed

pytestmark = pytest.mark.usefixtures("lmms_eval")

UNJUDGED = [name for name in BENCHMARKS if name != "MIABench"]
Reply = Callable[[dict[str, Any], int], str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All twelve, one file each, as `evaluate.data` expects them."""
    folder = tmp_path_factory.mktemp("data")
    for name in BENCHMARKS:
        write_parquet(name, folder / f"{name}.parquet")
    return folder


def task(
    name: str, data: Path, judge: Any = None, longest: int = 5, seed: int | None = None
) -> Any:
    from interlace.evaluation.run.tasks import published_task

    options: dict[str, Any] = {"data": data, "cache": data / ".cache", "judge": judge}
    return published_task(BENCHMARKS[name], max_new_tokens=longest, seed=seed, **options)


def answers_to(
    name: str, data: Path, answer: Reply | str, judge: Any = None, seed: int | None = None
) -> list[Answer]:
    from evaluation.fake_model import answer_all

    reply = answer if callable(answer) else lambda row, number: answer
    return answer_all([task(name, data, judge, seed=seed)], reply)[1][name]


def right(name: str, until: int = N) -> Reply:
    """Right answers to the first rows, then answers that name no option and no number."""
    return lambda row, number: target(BENCHMARKS[name], row) if number < until else "qqq"


def reasoned(name: str, of: Callable[[int], int] = lambda number: number) -> Reply:
    """A long answer that weighs options and states that of a row at last; `of` chooses the row."""

    def reply(row: dict[str, Any], number: int) -> str:
        truth = target(BENCHMARKS[name], published_rows(name)[of(number)]).split(" | ")[0]
        return (
            "Based on the picture, A car is to the left. Option A and (C) are not far, but yes, B:"
            f" no.\n\nSo I looked at the picture again.\n\nThe answer is **{truth}**."
        )

    return reply


class FakeJudge:
    """Gives one reply, or none."""

    def __init__(self, reply: str | None) -> None:
        self.reply = reply
        self.prompts: list[str] = []

    def ask(self, prompt: str, *, accepted: Any, max_tokens: int = 0) -> str | None:
        self.prompts.append(prompt)
        return self.reply if self.reply and accepted(self.reply) else None


@pytest.mark.parametrize("name", UNJUDGED)
def test_right_answers_score_and_meaningless_ones_do_not(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answers = answers_to(name, data, right(name, until=4))
    full = 1.0 if name != "TextVQA" else 0.9333
    expected = [full] * 4 + [0, 0]
    assert [answer.score for answer in answers] == pytest.approx(expected, abs=0.1)
    assert all(answer.prompt and answer.target for answer in answers)
    assert len({answer.sample_id for answer in answers}) == N
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name in UNJUDGED if "HRBench" not in name])
def test_scores_equal_those_of_lmms_eval(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lmms_eval.tasks
    from evaluation.fake_model import FakeModel
    from lmms_eval.evaluator import simple_evaluate

    def answer(row: dict[str, Any], number: int) -> str:
        text = right(name, until=3)(row, number)
        if name == "POPE-F1" and number >= 3:  # lmms-eval counts an answer of neither word nowhere
            return "no" if row["answer"] == "yes" else "yes"
        return text.strip(".").lower() if "POPE" in name else text  # it knows no "Yes."

    monkeypatch.chdir(tmp_path)
    published = task(name, data).task
    metrics = simple_evaluate(
        model=FakeModel(answer),
        tasks=[published],
        task_manager=lmms_eval.tasks.TaskManager(include_defaults=False),
        bootstrap_iters=0,
        log_samples=False,
        process_docs_parallel=1,
        distributed_executor_backend="torchrun",
        cli_args=argparse.Namespace(output_path=str(tmp_path), process_with_media=False),
    )["results"][published.config.task]
    metric = "pope_f1_score" if name == "POPE-F1" else BENCHMARKS[name].metric
    expected = next(value for key, value in metrics.items() if key.split(",")[0] == metric)
    if "OCRBench" in name:
        expected *= 1000 / N  # it divides by the published number of rows
    if BENCHMARKS[name].published not in ("MMBench", "VStar"):
        expected *= 100
    score = benchmark_score(answers_to(name, data, answer), "c")
    assert score and score.score == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "yes"),
    [(" YES, there is a dog.", 1), ("**Yes**", 1), ("Yesterday", 0), ("not yes", 0)],
)
def test_pope_takes_the_first_word_for_yes(text: str, yes: int, data: Path) -> None:
    assert [answer.score for answer in answers_to("POPE", data, text)] == [0, yes] * 3


@pytest.mark.parametrize("name", ["MMBench", "HRBench4K", "RealWorldQA", "VStar"])
@pytest.mark.parametrize("text", ["", "I see nothing"])
def test_an_answer_that_names_no_option_is_wrong(name: str, text: str, data: Path) -> None:
    assert {answer.score for answer in answers_to(name, data, text)} == {0}


def test_hrbench_asks_a_judge_only_what_it_cannot_read(data: Path) -> None:
    judge = FakeJudge("A")
    answers = answers_to("HRBench4K", data, right("HRBench4K", until=4), judge)
    rows = published_rows("HRBench4K")
    assert len(judge.prompts) == 2 and "flag 2" in judge.prompts[0]
    assert [answer.score for answer in answers[4:]] == [float(r["answer"] == "A") for r in rows[4:]]
    assert len({answer.question_id for answer in answers}) == 3


@pytest.mark.parametrize("reply", [None, "I cannot say"])
def test_a_failed_judgement_is_missing_and_not_wrong(reply: str | None, data: Path) -> None:
    judge = FakeJudge(reply)
    score = benchmark_score(answers_to("HRBench4K", data, right("HRBench4K", until=4), judge), "c")
    assert score and (score.score, score.n, score.missing) == (100, 4, 2)
    assert benchmark_score(answers_to("MIABench", data, "A dog.", judge), "c") is None


def test_mia_bench_takes_the_judges_total(data: Path) -> None:
    judge = FakeJudge("score of component 1: 3/10, total score: 3/10. It rhymes.")
    answers = answers_to("MIABench", data, "A dog.", judge)
    assert {answer.score for answer in answers} == {0.3}
    assert {prompt.split("Describe picture ")[1][0] for prompt in judge.prompts} == set("012345")
    assert all("A dog." in prompt for prompt in judge.prompts)


@pytest.mark.parametrize("thought", ["<think>Not {}.</think>\n", "It is {}.\n</think>\n\n"])
def test_reasoning_is_recorded_and_not_scored(thought: str, data: Path) -> None:
    def answer(row: dict[str, Any], number: int) -> str:
        wrong = "ABCD"[(int(row["answer"]) + 1) % 4]
        return thought.format(f"{wrong}. it is") + target(BENCHMARKS["AI2D"], row)

    answers = answers_to("AI2D", data, answer)
    assert {answer.score for answer in answers} == {1}
    assert all("</think>" in answer.answer for answer in answers)


@pytest.mark.parametrize("name", UNJUDGED)
def test_an_answer_that_ends_with_the_right_one_is_right(name: str, data: Path) -> None:
    full = 1.0 if name != "TextVQA" else 0.9333
    answers = answers_to(name, data, reasoned(name), seed=0)
    assert [answer.score for answer in answers] == pytest.approx([full] * N, abs=0.1)
    wrong = answers_to(name, data, reasoned(name, lambda number: number ^ 1), seed=0)
    same_truth = BENCHMARKS[name].published in ("MMBench", "HRBench4K", "HRBench8K")
    assert same_truth or {answer.score for answer in wrong} == {0}


def test_an_answer_that_begins_with_another_option_is_that_at_its_end(data: Path) -> None:
    def answer(row: dict[str, Any], number: int) -> str:
        return f"A. is too far, and B. too.\n\nThe answer is {target(BENCHMARKS['AI2D'], row)}."

    assert {answer.score for answer in answers_to("AI2D", data, answer, seed=0)} == {1}


@pytest.mark.parametrize("name", ["AI2D", "ChartQA", "POPE-F1"])
def test_reasoning_that_was_cut_off_answers_nothing(name: str, data: Path) -> None:
    def answer(row: dict[str, Any], number: int) -> str:
        return f"<think>Perhaps the answer is {target(BENCHMARKS[name], row)}. But"

    assert {answer.score for answer in answers_to(name, data, answer, seed=0)} == {0}


LONG_ANSWERS_READ = {"OCRBench", "OCRBench-Enlarged"}  # the truth may be anywhere


@pytest.mark.parametrize("name", [name for name in UNJUDGED if "HRBench" not in name])
def test_lmms_eval_would_misread_long_answers(name: str, data: Path) -> None:
    scores = {answer.score for answer in answers_to(name, data, reasoned(name))}
    assert (scores == {1}) == (name in LONG_ANSWERS_READ)


@pytest.mark.parametrize("name", ["AI2D", "MMBench", "VStar", "ScienceQA", "HRBench4K"])
def test_an_answer_cut_before_it_names_an_option_is_wrong(name: str, data: Path) -> None:
    cut = "Based on the picture, I compare option A and option B, and"
    assert {answer.score for answer in answers_to(name, data, cut, seed=0)} == {0}


def test_hrbench_s_judge_reads_a_long_answer_that_names_no_option(data: Path) -> None:
    judge = FakeJudge("A")
    long = "Based on the picture, I compare option A and option B."
    answers = answers_to("HRBench4K", data, long, judge, seed=0)
    assert len(judge.prompts) == N and long in judge.prompts[0]
    expected = [float(row["answer"] == "A") for row in published_rows("HRBench4K")]
    assert [answer.score for answer in answers] == expected


def test_an_f1_is_that_of_the_word_yes(data: Path) -> None:
    """The truths are no, yes, no, yes, no, yes: 2 TP, 1 FP, 1 FN."""
    replies = ["Yes", "Yes", "No", "No", "cannot say", "Yes"]
    answers = answers_to("POPE-F1", data, lambda row, number: replies[number])
    assert [answer.score for answer in answers] == [0, 1, 1, 0, 0, 1]
    assert [answer.weight for answer in answers] == [1, 2, 0, 1, 0, 2]
    score = benchmark_score(answers, "c")
    assert score and score.score == pytest.approx(100 * 2 * 2 / (2 * 2 + 1 + 1))
    [rest] = [benchmark_score(answers_to("POPE-F1", data, "no")[::2], "c")]
    assert rest and (rest.score, rest.standard_error) == (0, None)


def test_enlarged_images_have_enough_pixels_and_other_prompts_their_reasoning(data: Path) -> None:
    from evaluation.fake_model import answer_all

    names = ("OCRBench-Enlarged", "OCRBench", "AI2D")
    tasks = [task(name, data, seed=0) for name in names]
    model, answers = answer_all(tasks, lambda row, number: "", limit=1)
    images = [prompt[0]["content"][0]["url"].size for prompt in model.prompts[:2]]
    assert images == [(320, 320), (32, 32)]  # 102,400 pixels
    [answer] = answers["AI2D"]
    assert answer.prompt == model.prompts[2][0]["content"][1]["text"]
    assert answer.prompt.endswith(
        "D. white\nPlease select the correct answer from the options above. \n"
    )


def test_the_adapter_answers_all_twelve(data: Path, checkpoint: Checkpoint) -> None:
    from interlace.evaluation.run.adapter import open_adapter
    from interlace.evaluation.run.answering import answer_tasks

    adapter = open_adapter(checkpoint, Evaluate(batch_size=8))
    tasks = [task(name, data, FakeJudge(None)) for name in BENCHMARKS]
    answers = answer_tasks(adapter, tasks, limit=3)
    assert {name: len(rows) for name, rows in answers.items()} == dict.fromkeys(BENCHMARKS, 3)


def test_all_twelve_take_the_length_of_answers_and_no_stop_at_blank_lines(data: Path) -> None:
    from evaluation.fake_model import answer_all

    tasks = [task(name, data, longest=16384) for name in BENCHMARKS]
    model, _ = answer_all(tasks, lambda row, number: "", limit=1)
    assert [setting["max_new_tokens"] for setting in model.settings] == [16384] * len(BENCHMARKS)
    assert all("\n\n" not in setting["until"] for setting in model.settings)


def test_direct_answers_are_greedy_and_answers_with_reasoning_are_sampled_as_published(
    data: Path,
) -> None:
    from evaluation.fake_model import answer_all

    direct, _ = answer_all([task("POPE", data)], lambda row, number: "")
    assert {"temperature": 0.0, "presence_penalty": 0.0}.items() <= direct.settings[0].items()
    assert "seed" not in direct.settings[0]
    tasks = [task(name, data, seed=3) for name in ("POPE", "AI2D")]
    model, answers = answer_all(tasks, lambda row, number: "")
    published = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "presence_penalty": 1.5}
    assert all(published.items() <= settings.items() for settings in model.settings)
    sample_ids = [row.sample_id for rows in answers.values() for row in rows]
    seeds = [answer_seed(3, sample_id) for sample_id in sample_ids]
    assert [settings["seed"] for settings in model.settings] == seeds
    assert len(set(seeds)) == 2 * N


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_catalogue_agrees_with_lmms_eval(name: str, data: Path) -> None:
    from interlace.evaluation.run.tasks import definition

    benchmark, config = BENCHMARKS[name], definition(BENCHMARKS[name])
    assert benchmark.metric in {metric["metric"] for metric in config["metric_list"]}
    assert benchmark.split == config["test_split"]
    assert benchmark.configuration == config.get("dataset_name")
    assert benchmark.hub_id == (None if name == "MMBench-V1.1" else config["dataset_path"])
    assert task(name, data, FakeJudge(None)).judged == (benchmark.judge != "never")


def test_unavailable_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmms_eval.api.task import ConfigurableTask

    from interlace.evaluation.run.tasks import published_task

    monkeypatch.setattr(ConfigurableTask.download.retry, "sleep", lambda seconds: None)
    monkeypatch.setattr(
        "lmms_eval.api.task._resolve_hf_datasets_cache_dir", lambda: str(tmp_path / "cache")
    )
    with pytest.raises(InputError, match=r"evaluate\.benchmarks = 'POPE'.*evaluate\.data"):
        published_task(BENCHMARKS["POPE"], max_new_tokens=5)


def test_an_image_without_the_hubs_types_is_still_an_image(tmp_path: Path) -> None:
    path = write_parquet("AI2D", tmp_path / "AI2D.parquet")
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    assert {answer.score for answer in answers_to("AI2D", tmp_path, right("AI2D"))} == {1}
