"""The call `interlace.evaluate`: the scores of a model on held-out rows and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from interlace.evaluation.run import evaluate as evaluation
from interlace.evaluation.scores.result import Evaluation
from interlace.params.evaluating import EvaluateParams
from interlace.params.section import validated
from interlace.sources.pin import open_checkpoint, pin_checkpoint
from interlace.system.work import unfinished, work_root


def evaluate(
    model: Path | str,
    heldout: Path | str | None = None,
    *,
    benchmarks: Sequence[str] = (),
    data: Path | str | None = None,
    heldout_metric: str = "exact-match",
    answers: str = "direct",
    limit: int | None = None,
    batch_size: int = 16,
    max_new_tokens: int | str = "auto",
    max_pixels: int | None = None,
    dtype: str = "auto",
    seed: int = 0,
    answers_file: Path | str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    work: Path | str | None = None,
) -> Evaluation:
    """Score a model, dense or pruned, through lmms-eval.

    Args:
        model: hub id or folder.
        heldout: Parquet file in FineVision's schema; each of its sources is a benchmark.
        benchmarks: published benchmarks by name, e.g. AI2D; docs/evaluation.md lists them.
        data: local folder of the benchmarks' data; `None`: from the hub.
        heldout_metric: exact-match, or next-token for long texts.
        answers: how benchmarks are answered: direct, or reasoning.
        limit: rows per benchmark, rows; `None`: all.
        batch_size: prompts generated together, prompts.
        max_new_tokens: longest answer, tokens; auto: 50, or 16,384 with reasoning.
        max_pixels: cap on an image's size, pixels; `None`: the processor's own.
        dtype: type to compute in; auto: bfloat16 on a GPU, float32 on a CPU.
        seed: of sampled answers.
        answers_file: Parquet file for all answers; `None`: none.
        revision: of a model on the hub; `None`: the newest.
        trust_remote_code: let the model's own Python code run.
        work: folder from which an interrupted call resumes; `None`: it begins anew.

    Returns:
        Scores of 0 to 100 with standard errors, skipped benchmarks with reasons, losses.

    Raises:
        InputError: nothing to evaluate on, an unknown benchmark, a value out of its range, or data
            that cannot be read.
    """
    options = {
        **{"heldout": None if heldout is None else str(heldout), "benchmarks": tuple(benchmarks)},
        **{"data": None if data is None else str(data), "heldout_metric": heldout_metric},
        **{"answers": answers, "limit": limit, "batch_size": batch_size, "seed": seed},
        **{"max_new_tokens": max_new_tokens, "max_pixels": max_pixels},
    }
    params = validated(EvaluateParams, {"dtype": dtype, "evaluate": options}, "evaluate")
    checkpoint = open_checkpoint(model, revision, trust_remote_code=trust_remote_code)
    with (
        work_root(work) as root,
        unfinished(root, "evaluate", pin_checkpoint(checkpoint, root), params) as scratch,
    ):
        return evaluation.evaluate_checkpoint(
            checkpoint,
            params=params.evaluate,
            model_name=checkpoint.folder.name,
            dtype=params.dtype,
            answers_file=None if answers_file is None else Path(answers_file),
            scratch=scratch,
        )
