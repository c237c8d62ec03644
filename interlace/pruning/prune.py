"""The call `interlace.prune`: measure, choose, export and check, in one go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from interlace.data.call_rows import Rows, pin_rows
from interlace.errors import InputError
from interlace.measurements.measure import (
    MeasuredModel,
    call_params,
    measured,
    most_skipped,
    pin_params_model,
)
from interlace.params.whole import Params
from interlace.plan.record import Plan
from interlace.pruning.dense import Dense
from interlace.pruning.export import check_new
from interlace.pruning.written import write_pruned
from interlace.scores.table import read_scores
from interlace.selection.feasible import check_parameters
from interlace.selection.select import resolve_ratio, select_layers
from interlace.selection.stability import plan_with_stability
from interlace.system.outputs import remove

PLAN = "interlace_plan.json"  # in the checkpoint's folder


def prune(
    model: Path | str,
    rows: Rows,
    out: Path | str,
    *,
    ratio: float = 0.25,
    method: str = "interlace",
    samples: int = 512,
    compensate: str = "none",
    seed: int = 0,
    dtype: str = "auto",
    overwrite: bool = False,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Plan:
    """Remove decoder layers from a model: measure it, choose, write the checkpoint and check it.

    Nothing is healed: see `heal`. An interrupted call resumes from a folder beside `out`, which is
    removed at the end.

    Args:
        model: hub id or folder of the dense model.
        rows: as `measure` takes them.
        out: folder to write; it appears once it is complete and checked.
        ratio: share of the decoder's layers to drop, in (0, 1).
        method: a name that `interlace methods` lists.
        samples: rows to draw and measure on, rows.
        compensate: `lstsq`: fit the last weight of kept layers to make up for dropped ones.
        seed: of the draw, and of methods that draw.
        dtype: type to compute in; auto: bfloat16 on a GPU, float32 on a CPU.
        overwrite: replace a checkpoint that is there.
        revision: of a model on the hub; `None`: the newest.
        trust_remote_code: let the model's own Python code run.

    Returns:
        The plan; it also lies in `out`, as interlace_plan.json.

    Raises:
        InputError: a value out of its range, more drops than are feasible, a method that needs the
            pipeline, `out` is there, or a model or rows that cannot be used.
        ContractError: a hidden state is not finite, or the written model differs from the dense one
            without the layers.
    """
    values = {
        **{"ratio": ratio, "method": method, "seed": seed, "dtype": dtype},
        "model": {"id": str(model), "revision": revision, "trust_remote_code": trust_remote_code},
        "collect": {"max_bad": most_skipped(samples)},
        "export": {"compensate": compensate},
    }
    params = call_params(values, "prune")
    if params.ratio == "auto":
        raise InputError("ratio = auto: a budget is for the pipeline; set a ratio, e.g. 0.25")
    out = Path(out)
    root = out.with_name(f".{out.name}.prune")
    params = _reaching(params, params.ratio)
    with _kept_if_begun(root):
        pinned = pin_params_model(params, root)
        check_new(pinned.checkpoint().folder, out, overwrite=overwrite)
        check_parameters(params, pinned.n_layers, pinned.deepstack_layers, pinned.layer_kinds)
        with measured(pinned, pin_rows(rows, root), params, root, samples=samples) as subject:
            plan = _plan(subject, params)
            _export(subject, plan, out, params)
    return plan


@contextmanager
def _kept_if_begun(root: Path) -> Iterator[None]:
    """Remove a folder of work after the block, unless it ends early and something is measured."""
    try:
        yield
    finally:
        if not any(root.glob("measure/*/*")):
            remove(root)


def _reaching(params: Params, ratio: float) -> Params:
    """Return the parameters with losses measured as far as the ratio reaches."""
    further = max(params.sensitivity.max_ratio, ratio)
    losses = params.sensitivity.model_copy(update={"max_ratio": further})
    return params.model_copy(update={"sensitivity": losses})


def _plan(subject: MeasuredModel, params: Params) -> Plan:
    """Choose as the stage `select` does."""
    choose = partial(
        select_layers,
        method=params.method,
        ratio_or_drops=resolve_ratio(params.ratio, None),
        options=params.select,
        seed=params.seed,
    )
    return plan_with_stability(choose, read_scores(subject.scores), subject.replicates)


def _export(subject: MeasuredModel, plan: Plan, out: Path, params: Params) -> None:
    """Write as the stage `export` does; the plan goes with the checkpoint."""
    dense = Dense(subject.model.checkpoint(), subject.rows, params.answer_options)
    weights = subject.scratch / f"weights-{'-'.join(map(str, plan.drop))}-{plan.sparsity}"
    write_pruned(dense, plan, out, params.export, weights)
    plan.save(out / PLAN)
