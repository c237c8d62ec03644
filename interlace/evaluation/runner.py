"""Score one checkpoint on the benchmarks a user asked for."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from interlace.errors import InputError
from interlace.evaluation import heldout
from interlace.evaluation.benchmarks import Benchmark, find_benchmark, without_judge
from interlace.evaluation.isolation import isolated
from interlace.evaluation.result import Evaluation
from interlace.params import Evaluate

LIBRARIES = {"torch": "torch", "transformers": "transformers", "lmms_eval": "lmms-eval"}


def validate(params: Evaluate) -> None:
    """Check all that can be checked without loading a model; imports neither torch nor lmms-eval.

    Raises:
        InputError: nothing to evaluate on, an unknown benchmark, one named twice, a limit where it
            makes no sense, or a held-out file that is missing or malformed.
    """
    if not params.benchmarks and params.heldout is None:
        raise InputError("evaluate: nothing to evaluate on; set benchmarks, heldout or both")
    names = [benchmark.name for benchmark in _published(params)]
    for benchmark in _published(params):
        if params.limit is not None and benchmark.needs_all_rows:
            raise InputError(
                f"evaluate.limit = {params.limit}: {benchmark.name} divides by its full number of"
                f" rows; drop the limit or {benchmark.name}"
            )
    if params.heldout is not None:
        path = Path(params.heldout)
        heldout.check_schema(path)
        names += heldout.check_rows(path)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"evaluate: benchmark named twice: {', '.join(twice)}")


def _published(params: Evaluate) -> list[Benchmark]:
    return [find_benchmark(name) for name in params.benchmarks]


def evaluate(
    model_dir: Path | str,
    *,
    params: Evaluate,
    model_name: str,
    trust_remote_code: bool = False,
) -> Evaluation:
    """Score one checkpoint.

    Args:
        model_dir: folder (or hub id) of any vision-language checkpoint.
        params: benchmarks, held-out file and how to answer.
        model_name: what the result calls it, e.g. "pruned".
        trust_remote_code: let the checkpoint's own Python code run.

    Returns:
        Scores of 0 to 100 with standard errors and counts, skipped benchmarks with reasons, and
        what they were measured with. No times, hosts or paths.

    Raises:
        InputError: what `validate` refuses, or data that cannot be had.
    """
    validate(params)
    asked = {benchmark: without_judge(benchmark) for benchmark in _published(params)}
    skipped = {benchmark.name: reason for benchmark, reason in asked.items() if reason}
    runnable = [benchmark for benchmark, reason in asked.items() if not reason]
    with isolated(offline=not runnable and Path(model_dir).is_dir()):
        from interlace.evaluation.adapter import open_adapter
        from interlace.evaluation.tasks import heldout_tasks, published_task, run_tasks

        longest = params.max_new_tokens
        runs = [published_task(benchmark, max_new_tokens=longest) for benchmark in runnable]
        if params.heldout is not None:
            runs += heldout_tasks(Path(params.heldout), max_new_tokens=longest)
        adapter = open_adapter(
            model_dir,
            batch_size=params.batch_size,
            dtype=params.dtype,
            max_pixels=params.max_pixels,
            trust_remote_code=trust_remote_code,
        )
        scores, missing = run_tasks(adapter, runs, limit=params.limit) if runs else ({}, {})
        device, dtype = _device_name(adapter.device), str(adapter.dtype).removeprefix("torch.")
    return {
        "model": model_name,
        "scores": scores,
        "skipped": skipped | missing,
        "versions": {name: importlib.metadata.version(pip) for name, pip in LIBRARIES.items()},
        "device": device,
        "dtype": dtype,
    }


def _device_name(device: object) -> str:
    import torch

    kind = torch.device(str(device))
    return torch.cuda.get_device_name(kind) if kind.type == "cuda" else kind.type
