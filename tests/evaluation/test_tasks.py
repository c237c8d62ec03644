from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models import row

from interlace.evaluation.scores.answers import benchmark_score
from interlace.evaluation.scores.result import Score

pytestmark = pytest.mark.usefixtures("lmms_eval")

Write = Callable[[list[dict[str, Any]]], Path]


def fake(answer: Callable[[dict[str, Any], int], str]) -> Any:
    from evaluation.fake_model import FakeModel

    return FakeModel(answer)


def scored(model: Any, tasks: Any, **settings: Any) -> dict[str, Any]:
    from interlace.evaluation.run.answering import answer_tasks

    answers = answer_tasks(model, tasks, **settings)
    return {
        task.benchmark: benchmark_score(answers[task.benchmark], task.category) for task in tasks
    }


def gold(doc: dict[str, Any], place: int) -> str:
    return str(doc["texts"][-1]["assistant"])


def test_known_answers_give_known_scores(write_rows: Write) -> None:
    from interlace.evaluation.run.tasks import heldout_tasks

    made = [row(seed, images=seed % 3, source="b" if seed % 2 else "a") for seed in range(12)]
    runs = heldout_tasks(write_rows(made), max_new_tokens=7)

    def answer(doc: dict[str, Any], place: int) -> str:
        right = place < 3 if doc["source"] == "a" else True
        return f"  {gold(doc, place)}.\n" if right else "no"

    model = fake(answer)
    scores = scored(model, runs)
    assert list(scores) == ["a", "b"]
    error = 100 * math.sqrt((6 / 5) * 0.5 * 0.5 / 6)  # of three right in six
    assert scores["a"].score == 50
    assert scores["a"].standard_error == pytest.approx(error)
    assert scores["b"] == Score(score=100, standard_error=0, n=6, category="Held-out")
    assert model.settings[0]["max_new_tokens"] == 7


def test_a_limit_counts_rows_of_each_source(write_rows: Write) -> None:
    from interlace.evaluation.run.tasks import heldout_tasks

    made = [row(seed, source="b" if seed > 3 else "a") for seed in range(12)]
    model = fake(gold)
    scores = scored(model, heldout_tasks(write_rows(made), max_new_tokens=7), limit=5)
    assert {name: score.n for name, score in scores.items()} == {"a": 4, "b": 5}
    assert len(model.prompts) == 9


def test_the_last_turn_is_asked_with_the_true_history(write_rows: Write) -> None:
    from interlace.evaluation.run.tasks import heldout_tasks

    made = row(4, images=2, turns=3)
    model = fake(gold)
    scored(model, heldout_tasks(write_rows([made]), max_new_tokens=7))
    [turns] = model.prompts
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant", "user"]
    assert [part["type"] for part in turns[0]["content"]] == ["image", "image", "text"]
    said = [turn["content"][-1]["text"] for turn in turns]
    first, second, third = made["texts"]
    assert said == [
        first["user"],
        first["assistant"],
        second["user"],
        second["assistant"],
        third["user"],
    ]


def test_an_open_question_is_graded_by_the_judge(write_rows: Write) -> None:
    from interlace.evaluation.run.tasks import judged_tasks

    class Judge:
        def is_correct(self, question: str, target: str, answer: str) -> bool | None:
            return {"good": True, "bad": False}.get(answer)

    made = [row(seed, turns=2) for seed in range(4)]
    said = ["good", "bad", "?", "good"]
    tasks = judged_tasks(write_rows(made), Judge(), max_new_tokens=7)  # type: ignore[arg-type]
    score = scored(fake(lambda doc, place: said[place]), tasks)["made_up"]
    assert (score.score, score.n, score.missing) == (pytest.approx(200 / 3), 3, 1)
    assert score.category == "Judged"
