"""Scores in the hub's format, as the hub's own client reads them."""

from __future__ import annotations

from typing import Any

from huggingface_hub import EvalResultEntry, ModelCard, parse_eval_result_entries
from report.report_cases import make_run, params

from interlace.evaluation.scores.result import Evaluation, Reasoning, Score, ServingEngine
from interlace.params.whole import Params
from interlace.report.card.card import model_card
from interlace.report.card.eval_results import eval_results
from interlace.system.documents import parse_yaml

SCORES = {
    "AI2D": Score(score=70.123, standard_error=0.8123, n=3088, category="c"),
    "POPE-F1": Score(score=88.0, standard_error=None, n=9000, category="c"),
    "HRBench4K": Score(score=60, standard_error=1, n=800, category="c"),
    "HRBench8K": Score(score=50, standard_error=1, n=800, category="c"),
    "MMBench-V1.1": Score(score=80, standard_error=1, n=1000, category="c"),  # not on the hub
    "digit_sum": Score(score=90, standard_error=1, n=100, category="Held-out"),
}


def entries(run_params: Params | None = None, **facts: Any) -> dict[str, EvalResultEntry]:
    versions = {"lmms_eval": "0.7.3"}
    tuned = Evaluation(
        **{"model": "tuned", "scores": SCORES, "skipped": {}, "versions": versions, "device": "cpu"}
        | {"dtype": "float32"}
        | facts
    )
    run = make_run(
        params=run_params or params(evaluate={"judge": {"url": "http://j/v1", "model": "referee"}})
    )
    evaluations = dict(run.evaluations) | {"tuned": tuned}
    files = eval_results(make_run(params=run.params, evaluations=evaluations), "tuned")
    return {
        name: entry
        for name, text in files.items()
        for entry in parse_eval_result_entries(parse_yaml(text, name))
    }


def test_each_benchmark_with_a_hub_id_has_a_file_that_the_client_reads() -> None:
    assert {
        name: (entry.dataset_id, entry.task_id, entry.value) for name, entry in entries().items()
    } == {
        "ai2d.yaml": ("lmms-lab-encoder/ai2d", "ai2d", 70.12),
        "pope-f1.yaml": ("lmms-lab-encoder/POPE", "pope", 88.0),
        "hrbench4k.yaml": ("DreamMr/HR-Bench", "hrbench4k", 60),
        "hrbench8k.yaml": ("DreamMr/HR-Bench", "hrbench8k", 50),
    }


def test_notes_say_how_the_score_came_about() -> None:
    found = entries()
    assert found["ai2d.yaml"].notes == (
        "AI2D, score of 0 to 100 ± 0.81, 3,088 samples; lmms-eval 0.7.3; direct answers of at most"
        " 50 tokens; measured on a CPU in float32"
    )
    assert "POPE-F1, F1 of yes of 0 to 100, 9,000 samples" in str(found["pope-f1.yaml"].notes)
    assert str(found["hrbench4k.yaml"].notes).endswith("; judged by referee")


REASONING = Reasoning(
    max_new_tokens=16384, temperature=0.7, top_p=0.8, top_k=20, presence_penalty=1.5, seed=0
)
SAMPLED = (
    "benchmarks answered with reasoning in at most 16,384 tokens, sampled (temperature 0.7, top-p"
    " 0.8, top-k 20, presence penalty 1.5, seed 0)"
)


def test_reasoning_and_engines_are_named_there_and_in_the_card() -> None:
    engine = ServingEngine(name="vllm", version="0.12", command="vllm serve")
    notes = entries(reasoning=REASONING, engine=engine)["ai2d.yaml"].notes
    assert f"; measured by vllm serve, version 0.12; {SAMPLED}" in str(
        notes
    ) and "direct" not in str(notes)
    run = make_run()
    tuned = run.evaluations["tuned"].model_copy(update={"reasoning": REASONING})
    changed = make_run(evaluations=dict(run.evaluations) | {"tuned": tuned})
    text = " ".join(ModelCard(model_card(changed, "tuned")).text.split())
    assert f"Measured on a CPU in float32; {SAMPLED}." in text


def test_scores_of_some_rows_are_not_sent() -> None:
    assert entries(params(evaluate={"limit": 9})) == {}
