"""`interlace`: print a run's results, draw them, push a checkpoint to the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType

from interlace.errors import InputError, MissingInputError
from interlace.plan.candidates import read_candidates
from interlace.plan.record import read_plan
from interlace.printable import one_line, prepare_streams, say
from interlace.project.commands import init, scratch, upgrade
from interlace.project.forecast.command import plan_run
from interlace.report.facts.inputs import Workspace, changed_since_report, other_run, remedy
from interlace.report.facts.run import Which
from interlace.report.facts.summary import left_out, read_summary
from interlace.report.terminal.candidates import candidates_text
from interlace.report.terminal.console import plain_text, print_blocks
from interlace.report.terminal.methods import methods_table, removals_text
from interlace.report.terminal.plan import groups_table, layer_map_text
from interlace.report.terminal.summary import summary_table
from interlace.scores.table import Scores, read_scores
from interlace.system import interruption
from interlace.system.documents import read_record
from interlace.system.outputs import refusals_named, whole

SCORES = Path("artifacts/scores.parquet")
PLAN = Path("artifacts/plan.json")
CANDIDATES = Path("artifacts/candidates")
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
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The file to write: .png, .svg or .pdf.",
)


class OneLineErrors(click.Group):
    """A group of commands that report a user's mistake in one line, with exit code 2."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program, whatever the terminal's encoding."""
        prepare_streams()
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            with interruption.installed(), refusals_named():
                return super().invoke(ctx)
        except MissingInputError as error:
            hint = "run the pipeline: dvc repro"
            if not Path("dvc.yaml").exists():
                hint = "work in the folder of a run; `interlace init` starts one"
            say(f"error: {error}; {hint}", error=True)
            raise SystemExit(2) from None
        except InputError as error:
            say(f"error: {error}", error=True)
            raise SystemExit(2) from None
        except OSError as error:  # a place that the user named, and that cannot be read or written
            if error.filename is None:
                raise
            say(one_line(f"error: {error.filename}: {error.strerror}"), error=True)
            raise SystemExit(2) from None


@click.group(cls=OneLineErrors)
def main() -> None:
    """Print the results of the last run, draw them, push a checkpoint to the hub."""


main.add_command(init)
main.add_command(upgrade)
main.add_command(scratch)
main.add_command(plan_run)


@main.command("show")
def show_run() -> None:
    """Print the plan of the last run, and its summary if there is one of this plan."""
    plan = read_plan(PLAN)
    blocks: list[RenderableType] = [layer_map_text(plan)]
    if groups := groups_table(plan):
        blocks += ["", groups]
    if plan.candidates:
        blocks += ["", candidates_text(read_candidates(CANDIDATES))]
    if reason := other_run(Workspace()):
        blocks += ["", plain_text(f"no summary of this plan: {reason}; {remedy()}", "yellow")]
    else:
        blocks += _summary_blocks()
    print_blocks(*blocks)


def _summary_blocks() -> Iterator[RenderableType]:
    """Yield the summary of the last report, and published numbers of the same run."""
    from interlace.report.facts.published import Beside, published_table
    from interlace.report.facts.run import read_evaluations

    yield ""
    yield summary_table(read_summary(SUMMARY), left_out(read_evaluations(PLAN.parent)))
    if pairs := read_record(PUBLISHED, list[Beside]):
        yield ""
        yield published_table(pairs)


@main.command("prune")
@click.argument("model")
@click.option("--data", "rows", metavar="ROWS", required=True, help="Rows to measure on.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--ratio", default=0.25, show_default=True, help="Share of the layers to drop.")
@click.option("--method", default="interlace", show_default=True, help="Which layers to drop.")
@click.option("--samples", default=512, show_default=True, help="Rows to draw and measure on.")
@click.option("--overwrite", is_flag=True, help="Replace a checkpoint in FOLDER.")
@click.option("--trust-remote-code", is_flag=True, help="Let the model's own Python code run.")
def prune_model(model: str, rows: str, out: Path, **options: Any) -> None:
    """Remove layers from MODEL: measure, choose, write a checkpoint, check it. No pipeline.

    MODEL is an id on the hub or a folder. ROWS are a Parquet file or a folder of them in
    FineVision's schema, or an id on the hub. Nothing is trained. An interrupted run resumes.
    """
    from interlace.pruning.prune import prune

    plan = prune(model, rows, out, **options)
    print_blocks(layer_map_text(plan))
    say(f"prune: wrote {out}: {plan.n_layers} layers, {len(plan.keep)} kept; checked on its rows")


@main.command("methods")
@scores_option
@click.option(
    "--ratio", type=float, help="Show the layers that each method would drop at this ratio."
)
def list_methods(scores_file: Path, ratio: float | None) -> None:
    """List the methods, and which of their measurements exist."""
    scores: Scores | None = None
    if ratio is not None or scores_file != SCORES or SCORES.exists():
        scores = read_scores(scores_file)
    table = methods_table(scores)
    if scores and ratio is not None:
        table = removals_text(scores, ratio)
    print_blocks(table)


@main.command("compare")
@click.argument("answers", nargs=-1)
@click.option(
    "--show",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Changed answers to print, of each kind.",
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write an HTML page with images.",
)
@click.option(
    "--params",
    type=click.Path(path_type=Path),
    default=Path("params.yaml"),
    show_default=True,
    help="The parameter file, which names the benchmarks' data and thus the images.",
)
def compare_answers(answers: tuple[str, ...], show: int, html: Path | None, params: Path) -> None:
    """Show the answers that changed between models.

    ANSWERS are files, each as PATH or NAME=PATH; without any, those of the last run.
    """
    from interlace.evaluation.benchmarks.images import row_images
    from interlace.evaluation.scores.answers import read_answers
    from interlace.params.whole import read_params
    from interlace.report.page.changes import comparison_page
    from interlace.report.terminal.changes import changes_text

    by_model = {name: read_answers(path) for name, path in _answer_files(answers).items()}
    text = changes_text(by_model, show)
    if not answers and (reason := changed_since_report(Workspace())):
        say(f"note: {reason}: answers may be of different runs; {remedy()}", error=True)
    print_blocks(text)
    if html is not None:
        evaluate = read_params(params).evaluate
        page = comparison_page(by_model, max(show, 3), lambda *rows: row_images(evaluate, *rows))
        with whole(html) as partial:
            partial.write_text(page, encoding="utf-8")
        say(f"compare: wrote {html}")


def _answer_files(answers: tuple[str, ...]) -> dict[str, Path]:
    """Return files of answers by the name of their model."""
    if not answers:
        from interlace.report.facts.run import files_of

        names = files_of(ANSWERS.parents[1])
        return {name.replace("_", "-"): ANSWERS / f"{file}.parquet" for name, file in names.items()}
    files: dict[str, Path] = {}
    for value in answers:
        name, _, path = value.rpartition("=")
        name = name or Path(path).stem
        if name in files:
            raise InputError(f"{value}: a second {name!r}; write NAME=PATH to tell them apart")
        files[name] = Path(path)
    return files


@main.command("push")
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
    help="Write the files to this folder instead of uploading them.",
)
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--revision", help="Commit to this branch; it is created if missing.")
def push_checkpoint(
    repo: str, model: Which, folder: Path | None, private: bool, revision: str | None
) -> None:
    """Upload a checkpoint and its model card to REPO on the hub."""
    from interlace.report import publish

    files = publish.files_to_publish(Path("artifacts"), model, repo, revision)
    if folder:
        publish.write_to(files, folder)
        say(f"{folder}: {len(files)} files, as `push` would upload them to {repo}")
        return
    message = f"Upload the {model} checkpoint"
    say(publish.push(files, repo, private=private, revision=revision, message=message))


@main.command("gguf-pattern")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    default=Path("artifacts/tuned"),
    show_default=True,
    help="The checkpoint that the file was made of.",
)
def write_gguf_pattern(file: Path, model: Path) -> None:
    """Write the kinds of layers into a GGUF file.

    llama.cpp's converter leaves them out for Gemma 2 and 3, Cohere 2 and GPT-OSS. llama.cpp then
    takes them from a period of the dense model, and runs most pruned ones wrongly. FILE is
    replaced.
    """
    from interlace.pruning.gguf_pattern import write_pattern

    full = write_pattern(file, model)
    say(f"{file}: full attention in layers {', '.join(map(str, full))}, a window in all others")


@main.group("draw")
def draw_group() -> None:
    """Draw a figure of the last run."""


@draw_group.command("similarity")
@click.option("--scores", "pairs", multiple=True, help="A model's score table, as NAME=PATH.")
@out_option
def draw_similarity(pairs: tuple[str, ...], out: Path) -> None:
    """Draw redundancy over depth.

    One line for each --scores; without any, that of the last run.
    """
    from interlace.report.figures.similarity import similarity_figure

    tables: dict[str, Path] = {}
    for pair in pairs:
        name, _, path = pair.partition("=")
        if not name or not path or name in tables:
            raise InputError(f"--scores = {pair!r}: write NAME=PATH, each name once")
        tables[name] = Path(path)
    if not tables:
        tables = {read_scores(SCORES).provenance.get("model", "this model"): SCORES}
    similarity_figure(tables, out)


@draw_group.command("removals")
@scores_option
@click.option(
    "--ratio", "ratios", type=float, multiple=True, help="Ratio to draw; may be repeated."
)
@out_option
def draw_removals(scores_file: Path, ratios: tuple[float, ...], out: Path) -> None:
    """Draw the layers that each method would drop.

    Without --ratio at 0.1, 0.25 and 0.4.
    """
    from interlace.report.figures.removals import removal_map
    from interlace.selection.removals import RATIOS, removals

    removal_map(removals(scores_file, ratios or RATIOS), out)


@draw_group.command("probes")
@out_option
def draw_probes(out: Path) -> None:
    """Draw each layer's similarity on the probes, by task."""
    from interlace.report.figures.probes import probe_heatmap
    from interlace.scores.probes import probe_table

    table = probe_table(SIMILARITY)
    if not len(table):
        raise InputError(f"{SIMILARITY}: holds no probes; set probes.per_task, e.g. to 100")
    probe_heatmap(table, out)


@draw_group.command("layers")
@out_option
def draw_layers(out: Path) -> None:
    """Draw the role of each layer, before and after pruning."""
    from interlace.report.figures.layer_map import layer_map_figure

    plan = read_plan(PLAN)
    layer_map_figure(plan, out)


if __name__ == "__main__":
    main()
