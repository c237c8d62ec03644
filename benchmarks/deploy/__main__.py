"""Open the demo's dense and pruned checkpoints in the runtimes that people deploy with.

    make deploy-check
    python -m benchmarks.deploy --only vLLM

Each runtime gets an environment of its own in .scratch/deploy, made of exact pins, and answers the
same questions greedily. Its answers are compared with those of transformers. A runtime that is done
is not run again unless its pins, a checkpoint, a question or its code changed. One that cannot be
installed is named with its last line.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from benchmarks.deploy.environment import PINS, CannotRun, prepare
from benchmarks.deploy.kinds import kinds_table
from benchmarks.deploy.questions import Question, draw_questions
from benchmarks.deploy.runtimes import NOT_INSTALLED, REFERENCE, RUNTIMES, Runtime, Setting
from benchmarks.deploy.table import MODELS, Outcome, Row, table
from interlace.errors import InputError
from interlace.printable import say
from interlace.system.documents import read_json
from interlace.system.outputs import whole

SCRATCH = Path(".scratch/deploy")
SETTINGS = {  # of all programs: no network but the registry, one thread, and little memory
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}
OUT_OF_TIME = "no time was left; run it again"
HEAD = """# Runtimes on a CPU

`make deploy-check` writes this page. Each runtime opens the demo's dense checkpoint and the pruned
and tuned one, and answers the same {count} questions about pictures greedily, with float32 weights
where it does not quantise them. An answer is the same if it is equal to that of transformers
without the spaces around it. [deploy.md](deploy.md) says what to type.

"""


def run_all(
    checkpoints: Mapping[str, Path],
    questions: Sequence[Question],
    scratch: Path,
    deadline: float,
    only: Sequence[str] = (),
    runtimes: Sequence[Runtime] = RUNTIMES,
) -> list[Row]:
    """Run all runtimes that are not done, until the deadline; return the rows of the table.

    Args:
        checkpoints: by model.
        questions: to answer; `questions.json` in `scratch` holds them too.
        scratch: folder for environments, results and work.
        deadline: seconds of `time.monotonic`.
        only: names of runtimes to run; empty: all. Others show what they have.
        runtimes: the runtimes.
    """
    rows = []
    for runtime in runtimes:
        file = scratch / "results" / f"{runtime.name.replace(', ', '-').replace(' ', '-')}.json"
        key = _key(runtime, checkpoints, questions)
        outcome = _read_outcome(file, key)
        if outcome is None:
            if only and runtime.name not in only:
                outcome = Outcome(unready="it was not asked for")
            else:
                say(f"deploy-check: {runtime.name}")
                outcome = _run(runtime, checkpoints, questions, scratch, deadline)
                if not outcome.unready:
                    with whole(file) as partial:
                        partial.write_text(
                            json.dumps({"key": key, **asdict(outcome)}), encoding="utf-8"
                        )
        rows.append(Row(runtime.name, runtime.version(), runtime.note, outcome))
    return rows


def _run(
    runtime: Runtime,
    checkpoints: Mapping[str, Path],
    questions: Sequence[Question],
    scratch: Path,
    deadline: float,
) -> Outcome:
    """Prepare a runtime's environment, and let it answer for each checkpoint."""
    answers: dict[str, list[str]] = {}
    errors: dict[str, str] = {}
    environment = (scratch / (runtime.pins or "own")).absolute()
    try:
        _left(deadline)
        python = Path(sys.executable)
        if runtime.pins:
            python = prepare(runtime.pins, environment, _left(deadline), runtime.after)
        for model, checkpoint in checkpoints.items():
            setting = Setting(
                environment=environment,
                python=python,
                questions=questions,
                questions_file=(scratch / "questions" / "questions.json").absolute(),
                work=(scratch / "work" / _name(runtime, checkpoint)).absolute(),
                seconds=_left(deadline),
            )
            try:
                answers[model] = runtime.answer(setting, checkpoint)
            except CannotRun as error:
                _left(deadline)
                errors[model] = str(error)
    except CannotRun as error:
        return Outcome(unready=str(error))
    return Outcome(answers, errors)


def _left(deadline: float) -> float:
    """Return the seconds until the deadline.

    Raises:
        CannotRun: there are none.
    """
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise CannotRun(OUT_OF_TIME)
    return seconds


def _key(runtime: Runtime, checkpoints: Mapping[str, Path], questions: Sequence[Question]) -> str:
    """Return a digest of all that a runtime's answers depend on."""
    texts = [json.dumps([asdict(question) for question in questions]), _pins(runtime)]
    texts += [_digest(checkpoint) for checkpoint in checkpoints.values()]
    texts += [file.read_text(encoding="utf-8") for file in runtime.files]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _name(runtime: Runtime, checkpoint: Path) -> str:
    """Name the folder for what a runtime's packages make of a checkpoint."""
    digest = hashlib.sha256(f"{_pins(runtime)}\0{_digest(checkpoint)}".encode()).hexdigest()
    return f"{runtime.pins or 'own'}-{digest[:12]}"


def _pins(runtime: Runtime) -> str:
    if runtime.pins is None:
        return runtime.version()
    return (PINS / f"{runtime.pins}.txt").read_text(encoding="utf-8")


def _digest(checkpoint: Path) -> str:
    """Return a digest of all files of a checkpoint."""
    digests = []
    for file in sorted(path for path in checkpoint.iterdir() if path.is_file()):
        with file.open("rb") as content:
            digests.append(f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}")
    return "\n".join(digests)


def _read_outcome(file: Path, key: str) -> Outcome | None:
    if not file.exists():
        return None
    record = read_json(file)
    return Outcome(**record) if record.pop("key") == key else None


def page(rows: Sequence[Row], count: int, kinds: str) -> str:
    """Write the page: the table of runtimes, those not installed, and the check of GGUF kinds."""
    reference = next(row.outcome.answers for row in rows if row.name == REFERENCE.name)
    others = [f"- {name} was not installed: {reason}." for name, reason in NOT_INSTALLED.items()]
    return "\n".join([HEAD.format(count=count) + table(rows, reference), *others, "", kinds])


@click.command()
@click.option("--dense", type=click.Path(path_type=Path), default=Path("data/demo/model"))
@click.option("--pruned", type=click.Path(path_type=Path), default=Path("artifacts/tuned"))
@click.option("--rows", type=click.Path(path_type=Path), default=Path("data/demo/test.parquet"))
@click.option("--only", multiple=True, help="A runtime's name; others show what they have.")
@click.option("--minutes", type=float, default=40.0, help="Longest run; a later one resumes.")
@click.option("--scratch", type=click.Path(path_type=Path), default=SCRATCH)
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/deploy-check.md"))
def main(
    dense: Path,
    pruned: Path,
    rows: Path,
    only: tuple[str, ...],
    minutes: float,
    scratch: Path,
    out: Path,
) -> None:
    """Run all runtimes and write the page."""
    deadline = time.monotonic() + 60 * minutes
    os.environ.update(SETTINGS)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each start compiles its packages anew
    names = [runtime.name for runtime in RUNTIMES]
    try:
        for name in only:
            if name not in names:
                raise InputError(f"--only {name}: no such runtime; name one of {', '.join(names)}")
        checkpoints = dict(zip(MODELS, (dense, pruned), strict=True))
        for checkpoint in checkpoints.values():
            if not (checkpoint / "config.json").exists():
                raise InputError(f"{checkpoint}: no checkpoint there; run make demo first")
        questions = draw_questions(rows, scratch / "questions")
        results = run_all(checkpoints, questions, scratch, deadline, only)
        text = page(results, len(questions), kinds_table(scratch / "llamacpp", scratch / "kinds"))
        with whole(out) as partial:
            partial.write_text(text, encoding="utf-8")
    except InputError as error:
        say(f"error: {error}", error=True)
        sys.exit(2)
    say(text)


if __name__ == "__main__":
    main()
