"""Scores in the hub's format of evaluation results, which leaderboards of data sets gather."""

from __future__ import annotations

from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from interlace.evaluation.benchmarks.catalogue import BENCHMARKS, Benchmark
from interlace.evaluation.scores.result import Score
from interlace.report.facts.run import Run, Which
from interlace.report.facts.wording import measured_by
from interlace.system.documents import as_yaml

FOLDER = "eval_results"  # in the report's folder; holds one of each checkpoint


def eval_results(run: Run, which: Which) -> dict[str, str]:
    """Write the scores of benchmarks that are on the hub, each to a file of its own.

    Returns:
        Contents by name; none where only some rows were scored, which no leaderboard may compare.
    """
    if run.params.evaluate.limit:
        return {}
    scores = run.evaluations[which].scores
    benchmarks = [BENCHMARKS[name] for name in scores if name in BENCHMARKS]
    return {
        file_name(benchmark): as_yaml(
            eval_result_entries_to_yaml([_entry(run, which, benchmark, scores[benchmark.name])])
        )
        for benchmark in benchmarks
        if benchmark.hub_id
    }


def file_name(benchmark: Benchmark) -> str:
    """Return the name of a benchmark's file."""
    return f"{benchmark.name.lower()}.yaml"


def _entry(run: Run, which: Which, benchmark: Benchmark, score: Score) -> EvalResultEntry:
    evaluation = run.evaluations[which]
    error = "" if score.standard_error is None else f" ± {score.standard_error:.2f}"
    metric = "F1 of yes" if benchmark.f1 else "score"
    judge = run.params.evaluate.judge.model if benchmark.judge != "never" else None
    longest = run.params.evaluate.longest
    notes = [
        f"{benchmark.name}, {metric} of 0 to 100{error}, {score.n:,} samples",
        f"lmms-eval {evaluation.versions.get('lmms_eval', 'of unknown version')}",
        *([] if evaluation.reasoning else [f"direct answers of at most {longest:,} tokens"]),
        f"measured {measured_by(evaluation)}",
        *([f"judged by {judge}"] if judge else []),
    ]
    return EvalResultEntry(
        dataset_id=str(benchmark.hub_id),
        task_id=benchmark.task,
        value=round(score.score, 2),
        notes="; ".join(notes),
    )
