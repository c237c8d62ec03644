"""Everything about one run on one page, `artifacts/report/report.html`; see `page` for what it is.

The same run gives the same bytes: no time, host or absolute path is in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from interlace.plan.record import Plan
from interlace.plan.removals import PaperRule
from interlace.report.facts.decision import asked, listed, notes, number, outcome, score_name
from interlace.report.facts.published import HEADINGS, Beside, published_rows
from interlace.report.facts.roles import Role, layer_roles, roles_present
from interlace.report.facts.run import Run, pinned, shareable, versions
from interlace.report.facts.summary import MODELS, Metrics, benchmarks_of, references_in
from interlace.report.facts.wording import device_name, sample_counts, size, spelled
from interlace.report.figures.style import ROLE_COLOURS
from interlace.report.page.html import drawing, escaped, facts, folded, page, table

NONE = "\u2013"
PARTS = {
    "vision": "vision tower",
    "prefill": "prefill",
    "ttft": "first token",
    "decode": "each further token",
    "end_to_end": "end to end",
}
MEMORY = {"weights": "weights", "cache": "cache of the longest prompt", "peak": "peak"}


@dataclass(frozen=True)
class Drawing:
    """A figure in a file: where it is, and what it shows."""

    path: Path
    shows: str


def run_page(
    run: Run,
    drawings: Sequence[Drawing],
    *,
    plan_digest: str,
    published: Sequence[Beside] = (),
    compared: str = "",
) -> str:
    """The page.

    Args:
        run: what the cards are made from too.
        drawings: .png or .svg; those without a file are left out.
        plan_digest: SHA-256 of the plan's file.
        published: our scores beside published ones, where there are any.
        compared: HTML of a comparison of the models' answers, with its heading; empty: none.
    """
    base = Path(str(run.base["id"])).name
    shown = [each for each in drawings if each.path.is_file()]
    body = [
        f"<p>{escaped(outcome(run.plan))}</p>",
        facts(_facts(run.summary)),
        _layers(run.plan, run.rule),
        scores(run),
        _published(published),
        _speeds(run),
        "<h2>Figures</h2>\n" if shown else "",
        *(drawing(each.path.read_bytes(), each.path.suffix, each.shows) for each in shown),
        compared,
        _provenance(run, plan_digest),
    ]
    return page(f"{base}, pruned: {asked(run.plan)}", "\n".join(part for part in body if part))


def _published(found: Sequence[Beside]) -> str:
    if not found:
        return ""
    caption = "the same model, method and ratio; agree: as near as chance allows"
    return "<h2>Beside published numbers</h2>\n" + table(
        HEADINGS, published_rows(found), caption=caption, kind="plain"
    )


def _facts(summary: Metrics) -> list[tuple[str, str, str]]:
    before, after = summary["parameters_before"], summary["parameters_after"]
    rows = [
        (
            "decoder layers",
            f"{summary['layers_before']} \u2192 {summary['layers_after']}",
            f"{summary['layers_tuned']} tuned",
        ),
        (
            "parameters",
            f"{size(before)} \u2192 {size(after)}",
            f"{100 * (after / before - 1):+.1f}%",
        ),
    ]
    for model in MODELS[1:]:
        if f"score_{model}" in summary:
            kept = _percent(summary.get(f"retention_{model}"))
            more = f"dense {summary['score_dense']:.1f}; {kept} retained"
            for name in references_in(summary):
                of = _percent(summary.get(f"retention_{model}_of_{name}"))
                more += f", {of} of {spelled(name)}"
            rows.append((f"mean score, {model}", f"{summary[f'score_{model}']:.1f}", more))
    if "ttft_dense_ms" in summary:
        value = _times(summary.get("ttft_speedup"))
        rows.append(("first token, as fast", value, f"ideal {_times(summary['ttft_ideal'])}"))
    return rows


def _layers(plan: Plan, rule: PaperRule) -> str:
    """A box per layer with its place and its role, what the letters mean, and why each goes."""
    boxes = "".join(
        _box(role, f"<span>{layer}</span>{role.letter}"
             f'<span class="hidden">{role.meaning}</span>')
        for layer, role in enumerate(layer_roles(plan))
    )  # fmt: skip
    legend = "".join(
        _box(role, f"<b>{role.letter}</b> {role.meaning}") for role in roles_present(plan)
    )
    said = "".join(f"<li>{escaped(note)}</li>\n" for note in notes(plan, rule))
    return (
        f"<h2>Layers</h2>\n<p>Chosen by {escaped(asked(plan))}. Layers are positions in the dense"
        f' decoder, from 0.</p>\n<ol class="layers" aria-label="Role of each layer">{boxes}</ol>\n'
        f'<ul class="layers legend" aria-label="What the letters mean">{legend}</ul>\n'
        + (f"<ul>\n{said}</ul>\n" if said else "")
        + _groups(plan)
    )


def _box(role: Role, inner: str) -> str:
    on = "#fff" if role is Role.ANCHOR else "#000"  # at least 4.5:1 on every role's colour
    return f'<li style="--role:{ROLE_COLOURS[role]};--on:{on}">{inner}</li>'


def _groups(plan: Plan) -> str:
    ranked = [group for group in plan.groups if group.score is not None]
    rows = [
        [
            str(place),
            listed(group.layers, "\u2013"),
            group.kind,
            f"{score_name(plan, group)} = {number(group.score or 0.0)}",
            listed(group.drop, "\u2013"),
            listed(group.tune, "\u2013") if group.tune else NONE,
            NONE if group.anchor is None else str(group.anchor),
        ]
        for place, group in enumerate(ranked, start=1)
    ]
    headings = ["order", "layers", "kind", "score", "dropped", "tuned", "anchor"]
    return table(headings, rows, caption="Why each layer goes", kind="plain") if rows else ""


def _speeds(run: Run) -> str:
    """Times by part, by benchmark and by batch; what the models take of the memory."""
    took = run.ttft
    if "ttft_dense_ms" not in took:
        return "<h2>Speed</h2>\n<p>Not measured.</p>\n"
    n = took.get("threads", 0)
    threads = f" with {n} thread{'s' * (n != 1)}" if n else ""
    where = "a GPU" if took.get("on_gpu") else f"a CPU{threads}"
    headings = ["", "dense, ms", "tuned, ms", "as fast", "interval", "ideal"]
    known = [name for name in PARTS if f"{name}_dense_ms" in took]
    text = "<h2>Speed</h2>\n" + table(
        headings,
        [[PARTS[name], *_timed(took, name)] for name in known],
        caption=f"Medians of {took['pairs']} pairs of single prompts, in turn, on {where}",
        kind="plain",
    )
    text += (
        '<p class="note">The ideal is the ratio of FLOPs: what dropping the layers would give if'
        " they took the share of the time that they have of the work, all else unchanged.</p>\n"
    )
    for part in known:
        if why := took.get(f"{part}_speedup_refused"):
            text += f"<p>No speedup is given for {PARTS[part]}: {escaped(why)}.</p>\n"
    return text + _speeds_apart(took, headings) + _memory(took)


def _speeds_apart(took: Metrics, headings: Sequence[str]) -> str:
    text = ""
    benchmarks: Mapping[str, Metrics] = took.get("benchmarks", {})
    if benchmarks:
        rows = [
            [name, f"{one['tokens']:.0f}", *_timed(one, "ttft")] for name, one in benchmarks.items()
        ]
        columns = ["benchmark", "prompt, tokens", *headings[1:]]
        text += table(columns, rows, caption="First token by benchmark or source", kind="plain")
    for count, one in took.get("batches", {}).items():
        known = [name for name in PARTS if f"{name}_dense_ms" in one]
        rows = [[PARTS[name], *_timed(one, name)] for name in known]
        text += table(headings, rows, caption=f"Batches of {count} prompts", kind="plain")
    return text


def _memory(took: Metrics) -> str:
    rows = [
        [text, *(f"{took[f'{key}_{name}_bytes'] / 2**20:,.1f}" for name in ("dense", "tuned"))]
        for key, text in MEMORY.items()
        if f"{key}_dense_bytes" in took
    ]
    headings = ["", "dense, MiB", "tuned, MiB"]
    caption = "Memory of one prompt up to its first token"
    return table(headings, rows, caption=caption, kind="plain") if rows else ""


def _timed(took: Metrics, part: str) -> list[str]:
    """Times of one part, its speedup, the interval and the ideal, as text."""
    cells = [f"{took[f'{part}_{name}_ms']:,.1f}" for name in ("dense", "tuned")]
    low, high = (took.get(f"{part}_speedup_{end}") for end in ("low", "high"))
    between = NONE if low is None or high is None else f"{low:.2f} to {high:.2f}"
    return [*cells, _times(took.get(f"{part}_speedup")), between, _times(took.get(f"{part}_ideal"))]


def _provenance(run: Run, plan_digest: str) -> str:
    rows = [
        ["base model", _identity(run.sources["pinned_model"])],
        ["data", _identity(run.sources["pinned_data"])],
        ["training rows", f"{run.rows['train']:,}"],
        ["calibration rows", f"{run.rows['calibration']:,}"],
        ["plan", f"sha256 {plan_digest}"],
        ["made with", ", ".join(f"{name} {value}" for name, value in versions(run).items())],
    ]
    params: Any = shareable(pinned(run))
    told = yaml.safe_dump(params, sort_keys=False, allow_unicode=True)
    return (
        "<h2>Provenance</h2>\n"
        + table(["", "what"], rows, caption="What the run was made from", kind="text")
        + folded("params.yaml", told)
    )


def _identity(source: Mapping[str, Any]) -> str:
    """A source and which state of it: a revision, or the hashes of its weights or rows."""
    name = str(shareable(source["id"]))
    if "revision" in source:
        return f"{name}, revision {source['revision']}"
    hashes = [
        f"{file} sha256 {about['sha256']}"
        for file, about in sorted(source.get("files", {}).items())
        if file.endswith((".safetensors", ".parquet"))
    ]
    return ", ".join([name, *hashes])


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}%"


def _times(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}x"


NONE = "\u2013"
Key = tuple[str, str]  # what stands before and behind a model's name in a summary's key


def scores(run: Run) -> str:
    """The section: scores with their standard errors, what is retained, and what is left out."""
    summary, names = run.summary, benchmarks_of(run.summary)
    left = "".join(
        f"<li>{escaped(name)}: {escaped(why)}</li>\n" for name, why in run.left_out.items()
    )
    named = f"<p>Left out of the means:</p>\n<ul>\n{left}</ul>\n" if left else ""
    if not names:
        return f"<h2>Scores</h2>\n<p>Not measured.</p>\n{named}"
    references = references_in(run.evaluations)
    models, kept = [*MODELS, *references], retentions(references)
    rows = []
    for name in names:
        found = [run.evaluations[model].scores.get(name) for model in models]
        one, error = ("", f"/{name}"), ("error_", f"/{name}")
        rows.append([name, sample_counts(found), *_cells(summary, models, kept, one, error, one)])
    means = _cells(summary, models, kept, ("score_", ""), ("score_", "_error"), ("", ""))
    rows.append(["mean", "", *means])
    headings = ["samples", *map(_spelled, models), *kept.values()]
    measured = run.evaluations["dense"]
    caption = (
        "Scores, 0 to 100, ± one standard error, and what is retained (mean of ratios, with its"
        f" 95% interval); measured on {device_name(measured.device)} in {measured.dtype}"
    )
    text = table(["benchmark", *headings], rows, caption=caption)
    if rows := list(_categories(summary, models, kept)):
        text += table(["category", *headings], rows, caption="Means by category", kind="plain")
    return f"<h2>Scores</h2>\n{text}{named}"


def retentions(references: Sequence[str]) -> dict[str, str]:
    """Keys of what is retained, and how they are called: of dense, then of the reference."""
    found = {f"retention_{model}": f"{model} of dense" for model in MODELS[1:]}
    for name in references:
        for model in MODELS[1:]:
            found[f"retention_{model}_of_{name}"] = f"{model} of {spelled(name)}"
    return found


def _spelled(model: str) -> str:
    return model if model in MODELS else spelled(model)


def _categories(
    summary: Metrics, models: Sequence[str], kept: Mapping[str, str]
) -> Iterator[list[str]]:
    for key in summary:
        if key.startswith("category_samples/"):
            end = key.removeprefix("category_samples")
            score, error = ("category_", end), ("category_error_", end)
            yield [
                end[1:],
                f"{summary[key]:,}",
                *_cells(summary, models, kept, score, error, score),
            ]


def _cells(
    summary: Metrics,
    models: Sequence[str],
    kept: Mapping[str, str],
    score: Key,
    error: Key,
    share: Key,
) -> list[str]:
    """Scores of the models with their errors, and what is retained with its interval, as text."""

    def value(key: Key, name: str) -> float | None:
        return summary.get(name.join(key))

    shown = [_score(value(score, model), value(error, model)) for model in models]
    for name in kept:
        ends = [value((share[0], f"_{end}{share[1]}"), name) for end in ("low", "high")]
        shown.append(_share(value(share, name), ends))
    return shown


def _score(value: float | None, error: float | None) -> str:
    text = NONE if value is None else f"{value:.1f}"
    return text if error is None else f"{text} \u00b1 {error:.1f}"


def _share(value: float | None, ends: Sequence[float | None]) -> str:
    text = NONE if value is None else f"{value:.1f}%"
    low, high = ends
    return text if low is None or high is None else f"{text} [{low:.1f}, {high:.1f}]"
