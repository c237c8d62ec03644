"""`evaluate`: score one model on the benchmarks."""

from pathlib import Path

import click

from interlace.evaluation import evaluate, spoken
from interlace.evaluation.answers import write_answers
from interlace.outputs import remove, write_json
from interlace.params import EvaluateParams
from interlace.sources import model_folder
from stages.command import command, is_first_process, pinned, scratch_folder, scratch_root

MODELS = ("dense", "pruned", "tuned", "reference")


@command(EvaluateParams)
@click.option("--model", "name", type=click.Choice(MODELS), required=True)
def main(params: EvaluateParams, name: str) -> None:
    """Score the dense, the pruned, the tuned or the reference model on the benchmarks."""
    model = pinned("model")
    folder = model_folder(model) if name == "dense" else Path("artifacts") / name
    answers = Path(f"artifacts/evaluation/answers/{name}.parquet")
    if not (folder / "config.json").is_file():  # no reference is asked for
        if is_first_process():
            write_answers([], answers)
            write_json(Path(f"artifacts/evaluation/{name}.json"), None)
        return
    sources = Path("artifacts/sources.json")  # holds the hashes of the dense model and the data
    inputs = [sources] if name == "dense" else [sources, folder]
    scratch = scratch_folder("evaluate", params, inputs)
    result = evaluate(
        folder,
        params=params.evaluate,
        model_name=name,
        trust_remote_code=model["trust_remote_code"],
        answers_file=answers,
        scratch=scratch,
        judgements=scratch_root() / "judgements",
    )
    if is_first_process():
        write_json(Path(f"artifacts/evaluation/{name}.json"), result)
        remove(scratch)
        for line in spoken(result):
            click.echo(f"evaluate: {line}")


if __name__ == "__main__":
    main()
