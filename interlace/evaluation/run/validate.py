"""Validation of an evaluation's parameters and data, before any long work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from interlace.errors import InputError
from interlace.evaluation.benchmarks import heldout
from interlace.evaluation.benchmarks.catalogue import (
    NO_JUDGE,
    Benchmark,
    find_benchmark,
    published_name,
)
from interlace.evaluation.benchmarks.files import benchmark_files
from interlace.evaluation.run.engines import check_engine, check_servers
from interlace.evaluation.run.judge import FIELD
from interlace.params.evaluating import Evaluate
from interlace.sources.served import check_served, warn_of_plain_http


def validate(params: Evaluate, *, warn: bool = False) -> None:
    """Check parameters and data without loading a model; imports neither torch nor lmms-eval.

    Args:
        params: of the evaluation.
        warn: also print what is allowed and unwise.

    Raises:
        InputError: there is no benchmark, an unknown one, or one named twice; a limit does not fit
            a benchmark; a metric of held-out rows has none; data is missing or malformed; the
            engine's or the judge's settings cannot work; or nothing can be scored without a judge.
    """
    if not params.benchmarks and params.heldout is None and not params.judged:
        raise InputError("evaluate: nothing to evaluate on; set benchmarks, heldout or judged")
    if params.heldout_metric == "next-token" and params.heldout is None:
        raise InputError(
            "evaluate.heldout_metric = next-token: no rows to score; set evaluate.heldout, or leave"
            " it at exact-match"
        )
    check_engine(params, warn=warn)
    if params.answers == "reasoning" and not params.benchmarks and not params.judged:
        raise InputError(
            "evaluate.answers = reasoning: nothing is answered so, held-out rows are answered"
            " directly; set evaluate.benchmarks or evaluate.judged, or leave it at direct"
        )
    check_served(params.judge, FIELD)
    if warn:
        warn_of_plain_http(params.judge, FIELD)
    names = [benchmark.name for benchmark in published_benchmarks(params)]
    _check_editions(names)
    for benchmark in published_benchmarks(params):
        if params.limit is not None and benchmark.all_rows:
            raise InputError(
                f"evaluate.limit = {params.limit}: {benchmark.name} divides by its full number of"
                f" rows; drop the limit or {benchmark.name}"
            )
        if params.data is None and benchmark.hub_id is None:
            raise InputError(
                f"evaluate.benchmarks = {benchmark.name!r}: its data is not on the hub; put it into"
                " a folder and set evaluate.data (see docs/evaluation.md)"
            )
        if params.data is not None and not skip_reason(benchmark, params):
            benchmark_files(Path(params.data), benchmark)
    files = [("heldout", params.heldout)] if params.heldout is not None else []
    for field, file in [*files, *(("judged", file) for file in params.judged)]:
        heldout.check_questions(Path(file), f"evaluate.{field}")
        names += heldout.check_rows(Path(file))
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            f"evaluate: benchmark named twice: {', '.join(duplicates)}; names in benchmarks and"
            " sources in heldout and judged must differ"
        )
    needs_judge = all(skip_reason(benchmark, params) for benchmark in published_benchmarks(params))
    if needs_judge and params.heldout is None and not params.judge.url:
        raise InputError(
            "evaluate: no benchmark can be scored without a judge; set evaluate.judge.url or"
            " evaluate.heldout"
        )


def check_evaluation(params: Evaluate, dense: str, result: Path) -> None:
    """Check an evaluation before any long work; also ask the servers of the dense model, if any.

    The other models may not exist yet; `evaluate` asks their servers before anything else.

    Args:
        params: of the evaluation.
        dense: folder or id of the dense model.
        result: file of the dense model's scores; where it is there, no server is asked.

    Raises:
        InputError: `validate` refuses, or a server is down, refuses, or serves other models.
    """
    validate(params, warn=True)
    if not result.is_file():
        check_servers(params, "dense", Path(dense))


def _check_editions(names: Sequence[str]) -> None:
    """Refuse two editions of one benchmark, which would count twice in each mean."""
    for number, name in enumerate(names):
        for other in names[:number]:
            if name != other and published_name(name) == published_name(other):
                raise InputError(
                    f"evaluate.benchmarks: {other} and {name} are editions of one benchmark, which"
                    " would count twice in means; remove one"
                )


def published_benchmarks(params: Evaluate) -> list[Benchmark]:
    """Look up `evaluate.benchmarks`."""
    return [find_benchmark(name) for name in params.benchmarks]


def skip_reason(benchmark: Benchmark, params: Evaluate) -> str | None:
    """Explain why a benchmark gets no score; None if it gets one."""
    return NO_JUDGE if benchmark.judge == "always" and not params.judge.url else None
