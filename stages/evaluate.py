"""`evaluate`: score one model on the benchmarks."""

from pathlib import Path

import click

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.evaluation.run.evaluate import evaluate
from interlace.evaluation.scores.answers import write_answers
from interlace.evaluation.scores.retention import summary_lines
from interlace.outputs import remove, write_json
from interlace.params.evaluating import EvaluateParams
from interlace.sources.pinned import model_folder
from stages.command import command, is_first_process, pinned, scratch_folder, scratch_root

OUT, MODELS = Path("artifacts/evaluation"), ("dense", "pruned", "tuned", "reference")


@command(EvaluateParams)
@click.option("--model", "name", type=click.Choice(MODELS), required=True)
def main(params: EvaluateParams, name: str) -> None:
    """Score the dense, the pruned, the tuned or the reference model on the benchmarks."""
    model, answers = pinned("model"), OUT / f"answers/{name}.parquet"
    folder = model_folder(model) if name == "dense" else Path("artifacts") / name
    sources = Path("artifacts/sources.json")  # holds the hashes of the dense model and the data
    scratch = scratch_folder("evaluate", params, [sources, *([] if name == "dense" else [folder])])
    checkpoint, given = Checkpoint(folder, model["trust_remote_code"]), params.evaluate
    places = {"answers_file": answers, "scratch": scratch, "judgements": scratch_root() / "judged"}
    result = None
    if (folder / "config.json").is_file():  # not where no reference is asked for
        result = evaluate(checkpoint, params=given, model_name=name, **places)
    elif is_first_process():
        write_answers([], answers)
    if is_first_process():
        write_json(OUT / f"{name}.json", result.as_json() if result else None)
        remove(scratch)
        for line in summary_lines(result) if result else ():
            click.echo(f"evaluate: {line}")


if __name__ == "__main__":
    main()
