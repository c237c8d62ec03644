"""`evaluate`: score one model on the benchmarks."""

from pathlib import Path

import click

from interlace.evaluation import evaluate, overall_score
from interlace.outputs import remove, write_json
from interlace.params import EvaluateParams
from interlace.sources import model_folder
from stages.command import command, is_first_process, pinned, scratch_folder, scratch_root


@command(EvaluateParams)
@click.option("--model", "name", type=click.Choice(["dense", "pruned", "tuned"]), required=True)
def main(params: EvaluateParams, name: str) -> None:
    """Score the dense, the pruned or the tuned model on the benchmarks."""
    model = pinned("model")
    folder = model_folder(model) if name == "dense" else Path("artifacts") / name
    made = [] if name == "dense" else [folder]  # sources.json holds the dense model's hashes
    scratch = scratch_folder("evaluate", params, [Path("artifacts/sources.json"), *made])
    result = evaluate(
        folder,
        params=params.evaluate,
        model_name=name,
        trust_remote_code=model["trust_remote_code"],
        answers_file=Path(f"artifacts/evaluation/answers/{name}.parquet"),
        scratch=scratch,
        judgements=scratch_root() / "judgements",
    )
    if not is_first_process():
        return
    write_json(Path(f"artifacts/evaluation/{name}.json"), result)
    remove(scratch)
    score = overall_score(result["scores"])
    click.echo(f"evaluate: {name}: " + ("no score" if score is None else f"{score:.1f} of 100"))
    for benchmark, reason in (result["skipped"] | result.get("notes", {})).items():
        click.echo(f"evaluate: {benchmark}: {reason}")


if __name__ == "__main__":
    main()
