"""`evaluate`: score one model on the benchmarks."""

from pathlib import Path

import click

from interlace.evaluation import evaluate, overall_score
from interlace.outputs import write_json
from interlace.params import EvaluateParams
from interlace.sources import model_folder
from stages.command import command, is_first_process, pinned


@command(EvaluateParams)
@click.option("--model", "name", type=click.Choice(["dense", "pruned", "tuned"]), required=True)
def main(params: EvaluateParams, name: str) -> None:
    """Score the dense, the pruned or the tuned model on the benchmarks."""
    model = pinned("model")
    folder = model_folder(model) if name == "dense" else Path("artifacts") / name
    result = evaluate(
        folder,
        params=params.evaluate,
        model_name=name,
        trust_remote_code=model["trust_remote_code"],
    )
    if not is_first_process():
        return
    write_json(Path(f"artifacts/evaluation/{name}.json"), result)
    score = overall_score(result["scores"])
    click.echo(f"evaluate: {name}: " + ("no score" if score is None else f"{score:.1f} of 100"))
    for benchmark, reason in result["skipped"].items():
        click.echo(f"evaluate: skipped {benchmark}: {reason}")


if __name__ == "__main__":
    main()
