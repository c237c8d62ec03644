"""`interlace`: look at what a run made, draw it for papers, push it to the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console, RenderableType

from interlace.errors import InputError
from interlace.outputs import whole
from interlace.plan.record import read_plan
from interlace.report.facts.run import Which
from interlace.report.facts.summary import left_out
from interlace.report.terminal.methods import methods_table, removals_text
from interlace.report.terminal.plan import groups_table, layer_map_text
from interlace.report.terminal.summary import summary_table
from interlace.scores.table import Scores, read_scores
from interlace.selection.removals import paper_rule

SCORES = Path("artifacts/scores.parquet")
PLAN = Path("artifacts/plan.json")
SIMILARITY = Path("artifacts/hidden_states/similarity")
SUMMARY = Path("metrics/summary.json")
ANSWERS = Path("artifacts/evaluation/answers")
PUBLISHED = Path("artifacts/report/published.json")

scores_option = click.option(
    "--scores",
    "scores_file",
    type=click.Path(path_type=Path),
    default=SCORES,
    show_default=True,
    help="The score table.",
)
out_option = click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="The file to write: .png, .svg or .pdf.",
)


class OneLineErrors(click.Group):
    """A group of commands in which a user's mistake ends in one line and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except InputError as error:
            click.echo(f"error: {error}", err=True)
            raise SystemExit(2) from None


@click.group(cls=OneLineErrors)
def main() -> None:
    """Look at what a run of the pipeline made, draw it, push it to the hub."""


@main.command()
def show() -> None:
    """Print the plan of the workspace's last run, and its summary once there is one."""
    from interlace.report.facts.published import Beside, published_table
    from interlace.report.facts.run import read_evaluations, read_json

    plan = read_plan(PLAN)
    parts: list[RenderableType] = [layer_map_text(plan, paper_rule(plan.method))]
    if why := groups_table(plan):
        parts += ["", why]
    if SUMMARY.exists():
        missing = left_out(read_evaluations(Path("artifacts")))
        parts += ["", summary_table(read_json(SUMMARY), missing)]
    if PUBLISHED.exists() and (rows := read_json(PUBLISHED)):
        parts += ["", published_table([Beside(**row) for row in rows])]
    Console(highlight=False).print(*parts, sep="\n")


@main.command()
@scores_option
@click.option("--ratio", type=float, help="Show which layers each method would remove.")
def methods(scores_file: Path, ratio: float | None) -> None:
    """List every method, what it reads, and whether that was measured."""
    scores: Scores | None = None
    if ratio is not None or scores_file != SCORES or SCORES.exists():
        scores = read_scores(scores_file)
    shown = methods_table(scores)
    if scores and ratio is not None:
        shown = removals_text(scores, ratio)
    Console(highlight=False).print(shown)


@main.command()
@click.argument("answers", nargs=-1)
@click.option("--show", default=1, show_default=True, help="Changed answers of each kind to print.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page with images here.")
@click.option(
    "--params",
    type=click.Path(path_type=Path),
    default=Path("params.yaml"),
    show_default=True,
    help="Where the images are found.",
)
def compare(answers: tuple[str, ...], show: int, html: Path | None, params: Path) -> None:
    """Which answers changed: those of the last run's models, or of ANSWERS ([NAME=]PATH each)."""
    from interlace.evaluation.benchmarks.images import row_images
    from interlace.evaluation.scores.answers import read_answers
    from interlace.params.whole import read_params
    from interlace.report.page.changes import changes_section, changes_text
    from interlace.report.page.html import page

    given = {name: read_answers(path) for name, path in _named(answers).items()}
    Console(highlight=False).print(changes_text(given, show))
    if html is not None:
        where = read_params(params).evaluate
        section = changes_section(given, max(show, 3), lambda *rows: row_images(where, *rows))
        with whole(html) as partial:
            partial.write_text(page(f"Answers of {', '.join(given)}", section), encoding="utf-8")
        click.echo(f"compare: wrote {html}")


def _named(answers: tuple[str, ...]) -> dict[str, Path]:
    """Files of answers by the name of their model."""
    if not answers:
        from interlace.report.facts.run import files_of

        files = files_of(ANSWERS.parents[1])
        return {name.replace("_", "-"): ANSWERS / f"{file}.parquet" for name, file in files.items()}
    found: dict[str, Path] = {}
    for value in answers:
        name, _, path = value.rpartition("=")
        name = name or Path(path).stem
        if name in found:
            raise InputError(f"{value}: a second {name!r}; write NAME=PATH to tell them apart")
        found[name] = Path(path)
    return found


@main.command()
@click.argument("repo")
@click.option(
    "--model",
    type=click.Choice(["tuned", "pruned"]),
    default="tuned",
    show_default=True,
    help="The checkpoint to push.",
)
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path),
    help="Write the files to this folder instead; nothing is sent.",
)
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--revision", help="Commit to this branch; it is made if there is none.")
def push(repo: str, model: Which, folder: Path | None, private: bool, revision: str | None) -> None:
    """Upload a checkpoint and its model card to REPO on the hub."""
    from interlace.report import publish

    files = publish.files_to_publish(Path("artifacts"), model, repo, revision)
    if folder:
        publish.write_to(files, folder)
        click.echo(f"{folder}: {len(files)} files, as they would be uploaded to {repo}")
        return
    message = f"Upload the {model} checkpoint"
    click.echo(publish.push(files, repo, private=private, revision=revision, message=message))


@main.group()
def draw() -> None:
    """Draw a figure from what the workspace holds."""


@draw.command()
@click.option("--scores", "named", multiple=True, help="NAME=PATH of a model's score table.")
@out_option
def similarity(named: tuple[str, ...], out: Path) -> None:
    """Redundancy over depth; one line for each --scores, or the workspace's model alone."""
    from interlace.report.figures.similarity import similarity_figure

    tables: dict[str, Path] = {}
    for value in named:
        name, _, path = value.partition("=")
        if not name or not path or name in tables:
            raise InputError(f"--scores = {value!r}: write NAME=PATH, each name once")
        tables[name] = Path(path)
    if not tables:
        tables = {read_scores(SCORES).provenance.get("model", "this model"): SCORES}
    similarity_figure(tables, out)


@draw.command("removals")
@scores_option
@click.option("--ratio", "ratios", type=float, multiple=True, help="Repeat it for several.")
@out_option
def draw_removals(scores_file: Path, ratios: tuple[float, ...], out: Path) -> None:
    """What each method would remove, at --ratio 0.1, 0.25 and 0.4 or those given."""
    from interlace.report.figures.removals import removal_map
    from interlace.selection.removals import RATIOS, removals

    removal_map(removals(scores_file, ratios or RATIOS), out)


@draw.command()
@out_option
def probes(out: Path) -> None:
    """How little each layer changes the probes of each task."""
    from interlace.report.figures.probes import probe_heatmap
    from interlace.scores.probes import probe_table

    table = probe_table(SIMILARITY)
    if not len(table):
        raise InputError(f"{SIMILARITY}: holds no probes; set probes.per_task, e.g. to 100")
    probe_heatmap(table, out)


@draw.command()
@out_option
def layers(out: Path) -> None:
    """The role of each layer, before and after pruning."""
    from interlace.report.figures.layer_map import layer_map_figure

    plan = read_plan(PLAN)
    layer_map_figure(plan, paper_rule(plan.method), out)


if __name__ == "__main__":
    main()
