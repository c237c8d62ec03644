from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models import row

from interlace.evaluation.scores.answers import benchmark_score
from interlace.evaluation.scores.result import Score

pytestmark = pytest.mark.usefixtures("lmms_eval")

Write = Callable[..., Path]


def target(doc: dict[str, Any], number: int = 0) -> str:
    return str(doc["texts"][-1]["assistant"])


def run(
    path: Path, answer: Callable[[dict[str, Any], int], str], **settings: Any
) -> tuple[Any, dict[str, Score | None]]:
    """Answer a held-out file; returns the fake model and the scores."""
    from evaluation.fake_model import answer_all

    from interlace.evaluation.run.tasks import heldout_tasks

    tasks = heldout_tasks(path, max_new_tokens=7)
    model, answers = answer_all(tasks, answer, **settings)
    return model, {
        task.benchmark: benchmark_score(answers[task.benchmark], task.category) for task in tasks
    }


def test_known_answers_give_known_scores(write_rows: Write) -> None:
    def answer(doc: dict[str, Any], number: int) -> str:
        right = number < 3 or doc["source"] == "b"
        return f"  {target(doc)}.\n" if right else "no"

    rows = [row(seed, source="b" if seed % 2 else "a") for seed in range(12)]
    model, scores = run(write_rows(rows), answer)
    assert list(scores) == ["a", "b"]
    assert scores["a"] and scores["a"].score == 50
    assert scores["b"] == Score(score=100, standard_error=0, n=6, category="Held-out")
    assert model.settings[0]["max_new_tokens"] == 7


def test_a_limit_counts_rows_of_each_source(write_rows: Write) -> None:
    rows = [row(seed, source="b" if seed > 3 else "a") for seed in range(12)]
    _, scores = run(write_rows(rows), target, limit=5)
    assert {name: score and score.n for name, score in scores.items()} == {"a": 4, "b": 5}


def test_the_last_turn_is_asked_after_the_true_history(write_rows: Write) -> None:
    example = row(4, images=2, turns=3)
    model, _ = run(write_rows([example]), target)
    [turns] = model.prompts
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant", "user"]
    assert [item["type"] for item in turns[0]["content"]] == ["image", "image", "text"]
    history = [text for turn in example["texts"] for text in (turn["user"], turn["assistant"])]
    assert [turn["content"][-1]["text"] for turn in turns] == history[:-1]


def test_an_open_question_is_graded_by_the_judge(write_rows: Write) -> None:
    from interlace.evaluation.run.tasks import judged_tasks

    class Judge:
        def is_correct(self, question: str, target: str, answer: str) -> bool | None:
            return {"good": True, "bad": False}.get(answer)

    [task] = judged_tasks(write_rows([row(0)]), Judge(), max_new_tokens=7)
    assert [task.score(row(0), answer) for answer in ("good", "bad", "?")] == [1, 0, None]
    assert (task.category, task.judged) == ("Judged", True)
