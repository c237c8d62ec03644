"""`evaluate`: score one model on the benchmarks."""

from pathlib import Path
from typing import Any

import click

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.evaluation.run.evaluate import evaluate_checkpoint
from interlace.evaluation.scores.answers import write_answers
from interlace.evaluation.scores.retention import summary_lines
from interlace.params.evaluating import EvaluateParams
from interlace.printable import say
from interlace.system.outputs import write_json
from interlace.system.resumable import content_digest

from .command import command, is_first_process, kept_folder, pinned, scratch_folder

OUT, MODELS = Path("artifacts/evaluation"), ("dense", "pruned", "tuned", "reference")


@command(EvaluateParams)
@click.option("--model", "name", type=click.Choice(MODELS), required=True)
def main(params: EvaluateParams, name: str) -> None:
    """Score the dense, the pruned, the tuned or the reference model on the benchmarks."""
    model, folder, dense = pinned().model, Path("artifacts") / name, name == "dense"
    checkpoint = model.checkpoint() if dense else Checkpoint(folder, model.trust_remote_code)
    inputs = [Path("artifacts/sources.json"), *([] if dense else [folder])]
    answers, options = OUT / f"answers/{name}.parquet", params.evaluate
    files: dict[str, Any] = {"answers_file": answers, "judgements": kept_folder("judged")}
    weights = Path("artifacts/dense.json") if dense else folder
    files["served"] = kept_folder("served", *([] if options.opens_model else [weights]))
    key = params.model_copy(update={"evaluate": options.determining})
    exists = checkpoint.config_file.is_file()  # not where no reference is asked for
    with scratch_folder("evaluate", inputs, key) as scratch:
        files |= {"params": options, "dtype": params.dtype, "scratch": scratch}
        result = evaluate_checkpoint(checkpoint, model_name=name, **files) if exists else None
        if is_first_process():
            if result is None:
                write_answers([], answers)
                say(f"evaluate: no {name} model")
            digest = {} if dense else {"weights": content_digest(folder)}
            write_json(OUT / f"{name}.json", result.as_json() | digest if result else None)
            for line in summary_lines(result) if result else ():
                say(f"evaluate: {line}")


if __name__ == "__main__":
    main()
