"""The setting of a forecast, read from a project's folder: its parameters, model, data, machine."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.companions import SMALL_FILES
from interlace.errors import InputError
from interlace.evaluation.benchmarks.heldout import COLUMNS
from interlace.model.kinds import layer_kinds
from interlace.params.whole import Params
from interlace.project.forecast.encoded import encoded_facts
from interlace.project.forecast.machine import Machine, find_machine
from interlace.project.forecast.rows import row_facts
from interlace.project.forecast.setting import Questions, Setting, processes_of
from interlace.project.forecast.sizes import Sizes, has_weights, model_sizes
from interlace.samples.parquet import file_rows, row_count
from interlace.selection.feasible import check_parameters, feasible_plan
from interlace.sources.hub import hub_snapshot
from interlace.sources.pin import looks_local
from interlace.training.rows import TrainingBatches

ASKED = 32  # held-out rows that are encoded
QUARTER = 0.25  # of the layers, where a budget decides


def read_setting(
    params: Params, rows: int | None, options: dict[str, Any]
) -> tuple[Checkpoint, Setting, list[str]]:
    """Read all that a forecast is computed from.

    Args:
        params: all parameters.
        rows: of a data set that is not here.
        options: of the machine; arguments of `find_machine` by name.

    Returns:
        The dense model, the setting, and what cannot run on the machine; the setting is one that
        can.

    Raises:
        InputError: a model, data or a machine that cannot be planned with.
    """
    checkpoint = _configuration(params)
    machine = find_machine(processes_of(params.launch), **options)
    params, problems = _launched(params, machine)
    TrainingBatches.split(1, 0, params.finetune, processes_of(params.launch))
    dense = model_sizes(checkpoint)
    drops, tunes = _counts(params, checkpoint)
    setting = Setting(
        params=params,
        dense=dense,
        drops=drops,
        tunes=tunes,
        rows=row_facts(params, checkpoint, dense.patch, rows),
        heldout=_heldout(params, checkpoint, dense),
        machine=machine,
        fetched=0 if has_weights(checkpoint) else dense.total * dense.stored_bytes,
    )
    return checkpoint, setting, problems


def _configuration(params: Params) -> Checkpoint:
    """Return the checkpoint: its configuration and processor alone need be there."""
    model = params.model
    folder = Path(model.id)
    if not looks_local(model.id):
        folder = hub_snapshot(model.id, model.revision, "model", list(SMALL_FILES))
    elif not folder.is_dir():
        raise InputError(f"model.id = {model.id}: no such folder")
    return Checkpoint(folder, model.trust_remote_code)


def _launched(params: Params, machine: Machine) -> tuple[Params, list[str]]:
    """Return parameters that start no more processes than there are GPUs, and what was wrong."""
    processes = processes_of(params.launch)
    if not machine.gpus or processes <= machine.gpus:
        return params, []
    few = machine.gpus
    launch = f"torchrun --nproc-per-node {few} -m" if few > 1 else "python -m"
    problem = (
        f"launch = {params.launch!r} starts {processes} processes, and --gpus is {few}; set"
        f" launch to {launch}"
    )
    return params.model_copy(update={"launch": launch}), [problem]


def _counts(params: Params, checkpoint: Checkpoint) -> tuple[int, int]:
    """Return how many layers go, and how many are tuned; a quarter where a budget decides."""
    architecture = checkpoint.architecture
    n_layers, where = architecture.n_layers, str(checkpoint.config_file)
    kinds = layer_kinds(checkpoint.config, n_layers, where)
    check_parameters(params, n_layers, architecture.deepstack_layers, kinds)
    ratio = QUARTER if params.ratio == "auto" else params.ratio
    plan = feasible_plan(
        n_layers,
        architecture.deepstack_layers,
        params.method,
        ratio,
        params.select,
        params.collect.mode,
        kinds,
    )
    return len(plan.drop), len(plan.tune)


def _heldout(params: Params, checkpoint: Checkpoint, dense: Sizes) -> tuple[Questions, ...]:
    """Count the questions of local files, and the tokens of a few."""
    evaluate, patch = params.evaluate, dense.patch
    answer = 0 if evaluate.heldout_metric == "next-token" else evaluate.longest_heldout
    files = [(evaluate.heldout, answer)] if evaluate.heldout else []
    files += [(name, evaluate.longest) for name in evaluate.judged]
    questions = []
    for name, longest in files:
        path = Path(name)
        if not path.is_file():
            raise InputError(f"evaluate: {name}: no such file")
        rows = [row for _, row in islice(file_rows(path, COLUMNS), ASKED)]
        facts = encoded_facts(rows, checkpoint, patch)
        tokens = facts.tokens(facts.text, patch, evaluate.max_pixels, 2**31)
        image = facts.images.mean * facts.image_tokens(patch, evaluate.max_pixels).mean
        count = min(row_count(path), evaluate.limit or 2**31)
        questions.append(Questions(count, tokens, image, longest, with_loss=True))
    return tuple(questions)
