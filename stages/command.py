"""The command of a stage: its parameters, its help, its scratch folder, its errors."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from pydantic_core import PydanticUndefined

from interlace.errors import ContractError, InputError, MissingInputError
from interlace.params.section import S, Section, validated
from interlace.printable import prepare_streams, say
from interlace.sources.pinned import PinnedSources
from interlace.system import interruption
from interlace.system.distributed import lost_processes_named, process_rank
from interlace.system.documents import read_record, read_yaml
from interlace.system.joining import join_launch
from interlace.system.locks import locked
from interlace.system.outputs import refusals_named, remove, write_json
from interlace.system.scratch import folder_key
from interlace.system.scratch import scratch_root as scratch_root

from .digests import code_digest

ARTIFACTS, ANSWERS = Path("artifacts"), Path("data/answers")
WRITERS = {  # stage -> what it writes, as in dvc.yaml
    "pin": ("artifacts/code.json", "artifacts/params.json", "artifacts/sources.json"),
    "sample": ("data/train", "data/calibration", "data/probes", "data/datasheet.json"),
    "answers": ("data/answers",),
    "collect": ("artifacts/hidden_states", "artifacts/tokens.json"),
    "sensitivity": ("artifacts/sensitivity",),
    "score": (
        *("artifacts/scores.parquet", "artifacts/replicates.parquet"),
        *("metrics/profile.csv", "metrics/calibration_size.csv", "metrics/probes.csv"),
    ),
    "budget": ("artifacts/budget.json",),
    "rounds": ("artifacts/rounds",),
    "candidates": ("artifacts/candidates",),
    "select": ("artifacts/plan.json", "artifacts/removals.json"),
    "export": ("artifacts/pruned", "artifacts/export.json"),
    "finetune": ("artifacts/tuned", "metrics/local_loss.csv", "metrics/loss.csv"),
    "reference_plan": ("artifacts/reference_plan.json",),
    "reference": ("artifacts/reference",),
    "evaluate": ("artifacts/evaluation",),
    "ttft": ("metrics/ttft.json",),
    "report": ("artifacts/report", "metrics/summary.json"),
}
QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "WANDB_MODE": "disabled",
}


class _Command(click.Command):
    """A command whose help lists the parameters it reads, with units and defaults."""

    params_model: type[Section]

    def main(self, *args: Any, **kwargs: Any) -> Any:
        prepare_streams()
        return super().main(*args, **kwargs)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = list(_described(self.params_model))
        if rows:
            with formatter.section("Parameters (params.yaml, or dvc exp run -S ++name=value)"):
                formatter.write_dl(rows)


def _described(model: type[Section], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from _described(kind, f"{prefix}{name}.")
            continue
        value = field.default
        default = "required" if value is PydanticUndefined else f"default {json.dumps(value)}"
        yield f"{prefix}{name}", f"{field.description}  [{default}]"


def command(model: type[Section]) -> Callable[[Callable[..., None]], click.Command]:
    """Make a function that takes its validated parameters a Click command.

    The parameters come from the file given with --params, else from ./params.yaml. A user's
    mistake ends in one line and exit code 2.
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        name = function.__module__.rpartition(".")[2]

        @functools.wraps(function)
        def run(params_file: Path | None, **options: Any) -> None:
            _be_quiet()
            try:
                with (
                    interruption.installed(),
                    refusals_named(),
                    _work_folder(name),
                    lost_processes_named(),
                ):
                    function(_read(model, params_file), **options)
            except InputError as error:
                say(f"error: {error}{way_out(error)}", error=True)
                raise SystemExit(2) from None
            except ContractError as error:
                say(f"failed: {error}", error=True)
                raise SystemExit(1) from None

        option = click.Option(
            ["--params", "params_file"],
            type=click.Path(path_type=Path),
            help="Read parameters from this file, not from params.yaml.",
        )
        rank = click.Option(  # DeepSpeed's launcher appends it; the environment says the same
            ["--local_rank"], type=int, hidden=True, expose_value=False
        )
        options = list(reversed(getattr(run, "__click_params__", [])))
        stage_command = _Command(
            f"python -m {__package__}.{name}", callback=run, params=[*options, option, rank]
        )
        stage_command.help = function.__doc__
        stage_command.params_model = model
        return stage_command

    return decorate


def way_out(error: InputError) -> str:
    """Say which stage writes a missing input: by dvc.yaml, or by hand where DVC does not run it."""
    if not isinstance(error, MissingInputError):
        return ""
    for stage, paths in WRITERS.items():
        if any(f"{error.path.as_posix()}/".startswith(f"{path}/") for path in paths):
            if "DVC_STAGE" in os.environ:
                return f"; run `dvc repro {'-f ' if error.path.exists() else ''}{stage}`"
            model = f" --model {error.path.stem}" if stage == "evaluate" else ""
            return f"; run `python -m {__package__}.{stage}{model}`"
    return ""


def _be_quiet() -> None:
    """Keep libraries from phoning home, and from talking about themselves."""
    os.environ.update(QUIET)
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)


def _read(model: type[S], file: Path | None) -> S:
    """Read a stage's parameters from a file; all others are left to `pin`, which reads them all."""
    path = file or Path("params.yaml")
    values = read_yaml(path)
    if isinstance(values, dict) and "model" not in model.model_fields:
        values = {name: value for name, value in values.items() if name in model.model_fields}
    return validated(model, values, str(path))


def read_pinned(name: str) -> dict[str, Any]:
    """Read a file that `pin` wrote: `params` or `code`."""
    values: dict[str, Any] = read_record(Path(f"artifacts/{name}.json"), dict[str, Any])
    return values


def write_pinned(name: str, values: dict[str, Any]) -> None:
    """Write a file that `read_pinned` reads."""
    write_json(ARTIFACTS / f"{name}.json", values)


def pinned() -> PinnedSources:
    """Read what `pin` wrote; keep the hub's clients offline where all sources are local."""
    sources = PinnedSources.read(ARTIFACTS / "sources.json")
    if sources.local:
        os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
    return sources


@contextmanager
def _work_folder(stage: str) -> Iterator[None]:
    """Hold this folder's lock: the stages of a folder run one after another.

    A stage whose `dvc` was killed may still be at work in the folder. The next run waits for it in
    `pin`, before it deletes or replaces what that stage reads. The processes of a launch join
    first: the wait may be long. `pin` refuses to be launched.
    """
    if stage != "pin":
        join_launch(Path(".scratch/locks"))
    with _locked(scratch_root() / f"locks/{folder_key()}"):
        yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock in the first process of a launch; the others follow where processes meet."""
    if not is_first_process():
        yield
        return
    with locked(path, lambda sentence: say(sentence, error=True)):
        yield


@contextmanager
def scratch_folder(
    stage: str, inputs: Sequence[Path], *options: Section, keep: bool = False
) -> Iterator[Path]:
    """Hold the folder of an interrupted stage's work: one per code, inputs and options.

    It lies outside of the stage's outputs, which DVC deletes before it runs the stage. Experiments
    in other folders share it: the second of two with the same inputs waits for the first. It is
    removed when the block succeeds, unless it is to be kept.
    """
    words = [code_digest(stage), *(section.model_dump_json() for section in options)]
    digest = hashlib.sha256("".join(words).encode() + inputs_digest(inputs).encode())
    folder = scratch_root() / stage / digest.hexdigest()[:16]
    with _locked(folder.with_suffix(".lock")):
        yield folder
        if is_first_process() and not keep:
            remove(folder)


def inputs_digest(paths: Sequence[Path]) -> str:
    """Return a digest of the contents of files and folders."""
    digest = hashlib.sha256()
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file():
                with file.open("rb") as content:
                    digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]


def kept_folder(name: str, *inputs: Path) -> Path:
    """Return a folder for what outlives a stage, such as paid replies, one per inputs' content."""
    return scratch_root() / name / (inputs_digest(inputs) if inputs else "")


def logs_folder(stage: str, scratch: Path) -> Path:
    """Return the folder for reports of a stage's progress, one per content of its scratch."""
    return scratch_root().parent / "logs" / stage / scratch.name


def is_first_process() -> bool:
    """Tell if this process writes the stage's outputs: all but one under torchrun do not."""
    return process_rank() == 0
