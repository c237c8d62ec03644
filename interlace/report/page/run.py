"""Everything about one run on one page, `artifacts/report/report.html`.

No script, nothing from outside; fits a phone, light or dark. The same run gives the same bytes: no
time, host or absolute path is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interlace.plan.record import Plan
from interlace.plan.runtimes import misreadings
from interlace.report.facts.decision import (
    asked,
    listed,
    notes,
    number,
    outcome,
    percent,
    score_name,
)
from interlace.report.facts.published import HEADINGS, Beside, difference_notes, published_rows
from interlace.report.facts.roles import layer_roles, roles_present
from interlace.report.facts.run import (
    Run,
    base_name,
    file_hashes,
    pinned_params,
    shareable,
    versions,
)
from interlace.report.facts.scores import (
    category_rows,
    retentions,
    score_rows,
    share_text,
)
from interlace.report.facts.served import served_table
from interlace.report.facts.speed import PhaseTiming, Speed
from interlace.report.facts.summary import MODELS, Metrics, references_in
from interlace.report.facts.table import Table
from interlace.report.facts.wording import (
    NONE,
    measured_by,
    parameter_sizes,
    speedup_text,
    spelled,
    times_text,
    training_answers,
)
from interlace.report.page.changes import Comparison
from interlace.report.page.images import Drawing
from interlace.report.render import render
from interlace.sources.pinned import PinnedData, PinnedModel
from interlace.system.documents import as_yaml


@dataclass(frozen=True)
class Tile:
    """A name, its value in large, and a small line below."""

    name: str
    value: str
    more: str


def run_page(
    run: Run,
    drawings: Sequence[Drawing],
    *,
    plan_digest: str,
    published: Sequence[Beside] = (),
    losses: Table | None = None,
    candidates: Table | None = None,
    answers: Comparison | None = None,
) -> str:
    """Write the page.

    Args:
        run: what was measured.
        drawings: .png or .svg.
        plan_digest: SHA-256 of the plan's file.
        published: our numbers beside published ones.
        losses: on true answers, by source; None or without rows where none was measured.
        candidates: plans that were healed and compared; None where none were.
        answers: how the models' answers differ; None where nothing was scored.
    """
    plan = run.plan
    scores, categories = _score_tables(run)
    return render(
        "run.html",
        title=f"{base_name(run)}, pruned: {asked(plan)}",
        outcome=outcome(plan),
        tiles=_tiles(run.summary),
        asked=asked(plan),
        roles=layer_roles(plan),
        legend=roles_present(plan),
        notes=[*notes(plan), *misreadings(plan)],
        groups=_groups(plan),
        candidates=candidates,
        scores=scores,
        categories=categories,
        losses=losses,
        left_out=run.left_out,
        published=Table(
            HEADINGS,
            published_rows(published),
            " ".join(
                [
                    "The same model, method and ratio; agrees: the difference is within chance.",
                    *difference_notes(published),
                ]
            ),
        ),
        timings=_timings(run.speed) if run.speed else [],
        uncertain=_uncertain(run),
        drawings=drawings,
        answers=answers,
        provenance=_provenance(run, plan_digest),
        params=as_yaml(shareable(pinned_params(run))),
    )


def _tiles(summary: Metrics) -> list[Tile]:
    dense_size, pruned_size, change = parameter_sizes(summary)
    tiles = [
        Tile(
            "decoder layers",
            f"{summary['layers_before']} \u2192 {summary['layers_after']}",
            f"{summary['layers_tuned']} tuned",
        ),
        Tile("parameters", f"{dense_size} \u2192 {pruned_size}", change),
    ]
    for model in MODELS[1:]:
        if f"score_{model}" in summary:
            more = f"dense {summary['score_dense']:.1f}"
            more += f"; {share_text(summary.get(f'retention_{model}'))} retained"
            for name in references_in(summary):
                share = share_text(summary.get(f"retention_{model}_of_{name}"))
                more += f", {share} of {spelled(name)}"
            tiles.append(Tile(f"mean score, {model}", f"{summary[f'score_{model}']:.1f}", more))
    if "ttft_dense_ms" in summary:
        value = summary.get("ttft_speedup")
        more = f"ideal {times_text(summary['ttft_ideal'])}"
        if value is None:
            more = (
                f"{summary['ttft_speedup_low']:.2f}x to {summary['ttft_speedup_high']:.2f}x; {more}"
            )
        text = "uncertain" if value is None else times_text(value)
        tiles.append(Tile("first-token speedup", text, more))
    return tiles


def _score_tables(run: Run) -> tuple[Table, Table]:
    """Return scores and retention by benchmark, and by category."""
    dense, references = run.evaluations["dense"], references_in(run.evaluations)
    models, shares = [*MODELS, *references], retentions(references)
    headings = ["samples", *MODELS, *map(spelled, references), *shares.values()]
    rows, means = score_rows(run, models, list(shares))
    caption = (
        "Scores, 0 to 100, ± one standard error; retention as a mean of ratios, with its 95%"
        f" interval; measured {measured_by(dense)}"
    )
    categories = category_rows(run.summary, models, list(shares))
    return (
        Table(["benchmark", *headings], [*rows, means] if rows else [], caption),
        Table(["category", *headings], categories, "Means by category"),
    )


def _groups(plan: Plan) -> Table:
    ranked = [group for group in plan.groups if group.score is not None]
    rows = [
        [
            str(order),
            listed(group.layers, "\u2013"),
            group.kind,
            f"{score_name(plan, group)} = {number(group.score or 0.0)}",
            listed(group.drop, "\u2013"),
            listed(group.tune, "\u2013") if group.tune else NONE,
            NONE if group.anchor is None else str(group.anchor),
        ]
        for order, group in enumerate(ranked, start=1)
    ]
    headings = ["order", "layers", "kind", "score", "dropped", "tuned", "anchor"]
    return Table(headings, rows, "Why each layer is dropped")


def _timings(speed: Speed) -> list[Table]:
    """Return times by phase, by benchmark and by batch size, and memory."""
    headings = ["dense, ms", "tuned, ms", "speedup", "ideal"]
    tables = [
        Table(
            ["phase", *headings],
            [[timing.name, *_timed(timing)] for timing in speed.phases.values()],
            f"Medians of {speed.pairs} paired requests, batch size 1, on {speed.device}",
        )
    ]
    if speed.benchmarks:
        rows = [
            [name, f"{timing.tokens:.0f}", *_timed(timing)]
            for name, timing in speed.benchmarks.items()
        ]
        caption = "Time to first token by benchmark or source"
        tables.append(Table(["benchmark", "prompt, tokens", *headings], rows, caption))
    for count, phases in speed.batches.items():
        rows = [[timing.name, *_timed(timing)] for timing in phases.values()]
        tables.append(Table(["phase", *headings], rows, f"Batch size {count}"))
    if speed.memory:
        rows = [
            [name, *(f"{count / 2**20:,.1f}" for count in pair)]
            for name, pair in speed.memory.items()
        ]
        caption = "Memory of one prompt up to its first token"
        tables.append(Table(["memory", "dense, MiB", "tuned, MiB"], rows, caption))
    if speed.served:
        tables.append(served_table(speed.served, speed.served_by))
    return tables


def _uncertain(run: Run) -> str:
    """Say once what an uncertain speedup is; empty where there is none."""
    speed, ttft = run.speed, run.params.ttft
    if speed is None:
        return ""
    batches = [timing for phases in speed.batches.values() for timing in phases.values()]
    timings = [*speed.phases.values(), *speed.benchmarks.values(), *batches]
    served = [ratio for load in speed.served for ratio in (load.first_token, load.throughput)]
    if all(timing.speedup is not None or timing.low is None for timing in timings) and all(
        ratio.speedup is not None for ratio in served
    ):
        return ""
    return (
        f"A speedup is uncertain where its {percent(ttft.confidence)} interval is wider than"
        f" {percent(ttft.max_interval)} of it: time on an idle machine, or raise ttft.repeats."
    )


def _timed(timing: PhaseTiming) -> list[str]:
    """Return times of one phase, its speedup with the interval, and the ideal, as text."""
    milliseconds = [f"{timing.dense_ms:,.1f}", f"{timing.tuned_ms:,.1f}"]
    speedup = speedup_text(timing.speedup, timing.low, timing.high)
    return [*milliseconds, speedup, times_text(timing.ideal)]


def _provenance(run: Run, plan_digest: str) -> Table:
    rows = [
        ["base model", _identity(run.base)],
        ["data", _identity(run.sources.data)],
        ["training rows", f"{run.rows['train']:,}"],
        ["answers trained on", training_answers(run.trained_on)],
        ["calibration rows", f"{run.rows['calibration']:,}"],
        ["plan", f"sha256 {plan_digest}"],
        ["made with", ", ".join(f"{name} {value}" for name, value in versions(run).items())],
    ]
    return Table(["source", "identity"], rows, "What the run was made from")


def _identity(source: PinnedModel | PinnedData) -> str:
    """Name a source with its revision, or with the hashes of its weights or rows."""
    name = str(shareable(source.id))
    if source.revision:
        return f"{name}, revision {source.revision}"
    hashes = [f"{file} sha256 {digest}" for file, digest in file_hashes(source)]
    return ", ".join([name, *hashes])
