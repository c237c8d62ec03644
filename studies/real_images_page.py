"""The section about images on the page of the study on real weights, and its tables and figure."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from studies.contents import with_contents
from studies.methods_page import MATH
from studies.real_and_demo import APART, with_section
from studies.real_figures import draw_rises
from studies.real_findings import draws, dropped_layers, listed, protection, sentences, unseen
from studies.real_images_healed import FIGURE, draw_healed, exact, healed
from studies.real_images_healing import COMPENSATED
from studies.real_images_rows import Contrast, ImageRow
from studies.real_images_sinks import MASSIVE, SinkRow
from studies.real_page import WITH_IMAGES
from studies.real_rows import Layer, write_rows
from studies.real_table import Table, label, percent, shown

NAME, PAGE = "study-real-images", "study-real.md"
DOMAINS = (  # the domain-aware paper has the first one ahead
    ("math-aware", "random"),
    ("nonmath-aware", "random"),
    ("math-aware", "cka"),
    ("nonmath-aware", "cka"),
)
OWN_DOMAIN = ("math-aware", "nonmath-aware")  # the first on math, the second elsewhere
BENCHMARKS = {"math": "benchmarks of arithmetic", "other": "other benchmarks"}


@dataclass(frozen=True)
class Facts:
    """What the section says beside the rows.

    Attributes:
        n_layers: of the decoder.
        heldout: rows and answer tokens that models are judged on.
        dense_loss: of the dense model, nats per answer token.
        prompts: prompts that similarity is measured on.
        probes: probes beside them.
        loss_rows: rows that losses without layers are measured on.
        fitted_rows: rows that weights are fitted on.
        trained_tokens: answer tokens of the rows that models are healed on.
    """

    n_layers: int
    heldout: tuple[int, int]
    dense_loss: float
    prompts: int
    probes: int
    loss_rows: int
    fitted_rows: int
    trained_tokens: int


@dataclass(frozen=True)
class Study:
    """All that the section shows.

    Attributes:
        rows: models, the dense one among them.
        contrasts: of `DOMAINS`.
        layers: of the dense model.
        sinks: by layer, with and without images.
        facts: see `Facts`.
    """

    rows: Sequence[ImageRow]
    contrasts: Sequence[Contrast]
    layers: Sequence[Layer]
    sinks: Sequence[SinkRow]
    facts: Facts


def write_pages(study: Study, folder: Path) -> None:
    """Write the tables and the figure, and refresh the section in study-real.md."""
    write_rows(study.rows, folder / f"{NAME}.csv", ImageRow)
    write_rows(study.sinks, folder / f"{NAME}-sinks.csv", SinkRow)
    table = Table(study.rows, COMPENSATED)
    draw_rises(table, folder / f"{NAME}.png")
    draw_healed(table, folder / FIGURE)
    page = folder / PAGE
    text = with_section(page.read_text(encoding="utf-8"), section(study))
    page.write_text(with_contents(text), encoding="utf-8")


def section(study: Study) -> str:
    """Return the section."""
    table = Table(study.rows, COMPENSATED)
    below = [*sentences(table), *draws(table), *protection(table, study.layers)]
    parts = [*_head(study), *_sinks(study), *_methods(table)]
    parts += [_lower(line, " with images") for line in below]
    parts += unseen(study.layers) if study.layers else ()
    parts += [
        *_domains(study.contrasts),
        *healed(table, study.facts.trained_tokens),
        *_dropped(table),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _lower(line: str, words: str) -> str:
    """Turn a section's heading into one below, with words of its own."""
    return f"#{line.rstrip()}{words}\n" if line.startswith("## ") else line


def _dense(rows: Sequence[ImageRow]) -> ImageRow:
    return next(row for row in rows if row.method == "dense")


def _head(study: Study) -> Iterator[str]:
    facts, dense = study.facts, _dense(study.rows)
    n_rows, tokens = facts.heldout
    math = ", ".join(f"`{name}`" for name in MATH)
    yield f"""{WITH_IMAGES}

The same decoder sees the demo's images through a small tower that was trained for it
([how](../data/smolvlm/README.md)); the weights of its upper layers were trained too. Models are
judged on {n_rows} held-out questions of the demo, {tokens:,} answer tokens. The dense model's loss
is {facts.dense_loss:.3f} nats per token, and {dense.exact:.1f}% of its last answers are exact:
{dense.math:.1f}% in arithmetic ({math}), {dense.other:.1f}% in the other benchmarks.
Layers are chosen on {facts.prompts} training rows and {facts.probes} probes, by losses on
{facts.loss_rows} of these rows; compensated weights are fitted on {facts.fitted_rows}.
± is one standard error of a difference from the dense model, paired row by row.

    make study-real-images

measures on {os.cpu_count()} cores with torch {torch.__version__} and resumes where it stopped.
[{NAME}.csv]({NAME}.csv) holds all rows, [{NAME}-sinks.csv]({NAME}-sinks.csv) the longest tokens of
each layer.

![Rise of the loss by method and ratio, with images]({NAME}.png)
"""


def _sinks(study: Study) -> Iterator[str]:
    sinks = [layer.layer for layer in study.layers if layer.is_sink]
    yield "### Where the sink is\n"
    yield f"Layers that make or end a massive activation: {listed(sinks) or 'none'}. The table has"
    yield "the token of greatest norm in a prompt: how often it is the first one, an image's or"
    yield "another one, the median of its norm over the prompt's median norm, and how often that is"
    yield f"{MASSIVE:g} or more.\n"
    yield "| prompts | layer | first token | image | other text | norm | massive |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    shown_layers = {*sinks, *(i - 1 for i in sinks), *range(0, study.facts.n_layers, 10)}
    shown_layers |= {study.facts.n_layers - 1}
    for row in study.sinks:
        if row.layer in shown_layers:
            kind = "image first" if row.with_image else "text alone"
            yield (
                f"| {kind} | {row.layer} | {row.first:.0f}% | {row.image:.0f}% | {row.other:.0f}%"
                f" | {row.ratio:.1f} | {row.massive:.0f}% |"
            )
    yield ""
    if longest := max((row for row in study.sinks if row.with_image), key=lambda row: row.ratio):
        yield (
            f"Where an image comes first, the longest token is longest after layer {longest.layer}:"
            f" it is the first token in {longest.first:.0f}% of the prompts and an image's in"
            f" {longest.image:.0f}%.\n"
        )


def _methods(table: Table) -> Iterator[str]:
    shares = [percent(ratio) for ratio in table.ratios]
    heads = [*(f"rise, {s}" for s in shares), *(f"exact, {s}" for s in shares)]
    heads += [f"{kind}, {s}" for s in shares for kind in ("math", "other")]
    yield "### Methods with images\n"
    yield f"| method | {' | '.join(heads)} |"
    yield "|---|" + "---:|" * len(heads)
    for name in table.names:
        cells = [table.cell(name, ratio) for ratio in table.ratios]
        if any(cells):
            numbers = [shown(cell) for cell in cells]
            numbers += [exact(table, name, ratio, "exact") for ratio in table.ratios]
            numbers += [
                exact(table, name, ratio, kind)
                for ratio in table.ratios
                for kind in ("math", "other")
            ]
            yield f"| {label(name)} | {' | '.join(numbers)} |"
    yield "\nRise: of the loss, nats per answer token. Exact: percent of last answers.\n"


def _domains(contrasts: Sequence[Contrast]) -> Iterator[str]:
    yield "### Math and other probes\n"
    yield "The domain-aware paper finds rankings by either domain ahead of random choices and CKA;"
    yield "one would expect each domain to serve its own benchmarks best. The table has by how many"
    yield "percentage points of exact match the first method is ahead, without protection. Two are"
    yield f"apart beyond {APART:g} standard errors, paired row by row and over draws.\n"
    yield "| ratio | methods | math | other |"
    yield "|---:|---|---:|---:|"
    by_pair: dict[tuple[float, str, str], dict[str, Contrast]] = {}
    for one in contrasts:
        by_pair.setdefault((one.ratio, one.first, one.second), {})[one.kind] = one
    for (ratio, first, second), kinds in by_pair.items():
        cells = [f"{kinds[k].value:+.1f} ± {kinds[k].error:.1f}" for k in ("math", "other")]
        yield f"| {percent(ratio)} | `{first}` over `{second}` | {' | '.join(cells)} |"
    yield ""
    for ratio in sorted({ratio for ratio, _, _ in by_pair}):
        here = [one for one in contrasts if one.ratio == ratio]
        published = [one for one in here if (one.first, one.second) in DOMAINS]
        own = [one for one in here if (one.first, one.second) == OWN_DOMAIN]
        yield f"- {percent(ratio)}: against `random` and `cka`, {_verdicts(published)}."
        for one in own:
            yield f"- {percent(ratio)}, {BENCHMARKS[one.kind]}: {_verdict(one)}."
    yield ""


def _verdicts(contrasts: Sequence[Contrast]) -> str:
    sure = [one for one in contrasts if abs(one.value) > APART * one.error]
    ahead = sum(one.value > 0 for one in sure)
    return (
        f"rankings by domain are ahead in {ahead} of {len(contrasts)} comparisons and behind in"
        f" {len(sure) - ahead}"
    )


def _verdict(one: Contrast) -> str:
    if abs(one.value) <= APART * one.error:
        return f"`{one.first}` and `{one.second}` are not apart"
    better, worse = (one.first, one.second) if one.value > 0 else (one.second, one.first)
    return f"`{better}` is ahead of `{worse}`"


def _dropped(table: Table) -> Iterator[str]:
    yield "### Layers dropped with images\n"
    yield from dropped_layers(table)
