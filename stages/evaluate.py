"""`evaluate`: score one model on the benchmarks."""

from pathlib import Path

import click

from interlace.evaluation import evaluate, overall_score
from interlace.outputs import write_json
from interlace.params import EvaluateParams
from interlace.sources import model_folder
from stages.command import command, is_first_process, pinned

MODELS = ("dense", "pruned", "tuned", "reference")


@command(EvaluateParams)
@click.option("--model", "name", type=click.Choice(MODELS), required=True)
def main(params: EvaluateParams, name: str) -> None:
    """Score the dense, the pruned, the tuned or the reference model on the benchmarks."""
    model = pinned("model")
    folder = model_folder(model) if name == "dense" else Path("artifacts") / name
    given, trust, result = params.evaluate, model["trust_remote_code"], None
    if (folder / "config.json").is_file():  # not where no reference is asked for
        result = evaluate(folder, params=given, model_name=name, trust_remote_code=trust)
    if is_first_process():
        write_json(Path(f"artifacts/evaluation/{name}.json"), result)
    if result is None or not is_first_process():
        return
    score = overall_score(result["scores"])
    click.echo(f"evaluate: {name}: " + ("no score" if score is None else f"{score:.1f} of 100"))
    for benchmark, reason in result["skipped"].items():
        click.echo(f"evaluate: skipped {benchmark}: {reason}")


if __name__ == "__main__":
    main()
