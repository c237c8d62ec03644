"""The page of the study on real weights: every number in it is computed from the study's rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp
from pathlib import Path

from studies.contents import with_contents
from studies.readme import refresh_readme
from studies.real_and_demo import (
    beside_demo,
    beside_real,
    section_of,
    which_method,
    with_section,
)
from studies.real_figures import draw_dropped, draw_layers, draw_rises
from studies.real_findings import (
    compensation,
    draws,
    dropped_layers,
    protection,
    sentences,
    unseen,
)
from studies.real_rows import PLAIN, RERANKED, Facts, Layer, Row, write_rows
from studies.real_table import Cell, Table, label, percent, shown

WHICH = "## Which method to take"
WITH_IMAGES = "## With images"  # of `real_images`
METHODS_WORDS = """Before tuning, on a real pretrained decoder: the method that loses least among
those that a measurement allows, the rise of its held-out loss in nats per token, and after → the
rise that compensation leaves. The last column is the demo's exact match, percent. All are in
[study-real.md](study-real.md) and [study-methods.md](study-methods.md).
"""


def write_pages(rows: Sequence[Row], layers: Sequence[Layer], facts: Facts, folder: Path) -> None:
    """Write study-real.md and its figures; refresh what other pages take from it.

    Args:
        rows: all rows, those that were not scored too.
        layers: of the dense model; none: not measured yet.
        facts: what the page says beside the rows.
        folder: where to write; study-methods.csv, study-methods.md and methods.md are there
            already, and README.md may be beside the folder.
    """
    table, demo = Table(rows, facts.rules[0]), folder / "study-methods.csv"
    _rewrite(folder / "study-real.md", page(table, layers, facts, demo))
    write_rows(layers, folder / "study-real-layers.csv", Layer)
    _refresh(folder / "study-methods.md", beside_real(table, demo))
    section = "\n".join([f"{WHICH}\n", METHODS_WORDS, *which_method(table, demo)])
    _refresh(folder / "methods.md", section)
    refresh_readme(folder)
    draw_rises(table, folder / "study-real.png")
    draw_dropped(table, layers, folder / "study-real-dropped.png")
    if layers:
        draw_layers(layers, folder / "study-real-layers.png")


def _rewrite(path: Path, text: str) -> None:
    """Write the page, but for the section that another study wrote."""
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    if kept := section_of(before, WITH_IMAGES):
        text = with_contents(with_section(text, kept))
    path.write_text(text, encoding="utf-8")


def _refresh(path: Path, section: str) -> None:
    text = with_section(path.read_text(encoding="utf-8"), section)
    path.write_text(with_contents(text), encoding="utf-8")


def page(table: Table, layers: Sequence[Layer], facts: Facts, demo: Path) -> str:
    """Return the text of study-real.md.

    Args:
        table: all rows.
        layers: see `write_pages`.
        facts: see `write_pages`.
        demo: the CSV file of the demo's study of methods.
    """
    sections = [_head(table, facts), *_rises(table), *sentences(table), *draws(table)]
    sections += [*protection(table, layers), *compensation(table, facts), *_agreement(table)]
    sections += [*_dropped(table), *_layers(layers), *_sparse(table), *beside_demo(table, demo)]
    sections += [f"{WHICH}\n", *which_method(table, demo)]
    sections += [*_costs(facts), *_missing(table, facts)]
    return with_contents("\n".join(sections).rstrip() + "\n")


def _head(table: Table, facts: Facts) -> str:
    heldout_rows, tokens = facts.heldout
    shares = ", ".join(map(percent, table.ratios))
    errors = [row.error for row in table.rows if row.error and row.weights == PLAIN]
    span = f"{min(errors):.3f} to {max(errors):.3f}" if errors else "not known yet"
    return f"""# Every method on a real pretrained decoder, before tuning

SmolLM2-135M-Instruct, {facts.n_layers} layers, loses {shares} of them; nothing is tuned.
Layers are chosen on training rows. The loss is that of {tokens:,} answer tokens in
{heldout_rows} held-out rows, from packages that no training row comes from
([how the rows are made](../data/smollm2/README.md)). The dense model's loss is
{facts.dense_loss:.3f} nats per token, a perplexity of {exp(facts.dense_loss):.1f}.

A rise is the loss of the pruned model minus that of the dense model, in nats per token. ± is one
standard error, paired row by row: {span} nats. All methods drop the same number of layers
(`select.base=all`). `protected` is `select.protect: auto`, which spares the layers that make or end
an attention sink; without it, the page shows the published rules. Choices that
protection does not change have one row.

    make study-real

measures on two cores and resumes where it stopped. [study-real.csv](study-real.csv) holds all rows,
[study-real-layers.csv](study-real-layers.csv) the layers. Measured on {facts.machine}.

![Rise of the loss by method and ratio](study-real.png)
"""


def _rises(table: Table) -> Iterator[str]:
    yield "## Rise of the loss\n"
    shares = [percent(ratio) for ratio in table.ratios]
    heads = [*shares, *(f"{share}, compensated" for share in shares)]
    yield f"| method | {' | '.join(heads)} |"
    yield "|---|" + "---:|" * len(heads)
    for name in table.names:
        cells = [
            table.cell(name, ratio, weights)
            for weights in (PLAIN, table.default)
            for ratio in table.ratios
        ]
        if any(cells):
            yield f"| {label(name)} | {' | '.join(map(shown, cells))} |"
    yield "\n`random`: mean and standard deviation over draws, and the least and the greatest."
    yield "A dash stands for what was refused, or not measured."
    yield f"Compensation weighs tokens {table.default}. `{RERANKED}` takes, of the best sets of the"
    yield "search, the one of least loss on calibration answers after compensation.\n"


def _agreement(table: Table) -> Iterator[str]:
    yield "## First choices\n"
    yield "The share of answer tokens on which the pruned model's likeliest token is the dense"
    yield "model's, percent, and the factor by which the perplexity grows.\n"
    shares = [percent(ratio) for ratio in table.ratios]
    heads = [*(f"agreement, {s}" for s in shares), *(f"perplexity, {s}" for s in shares)]
    yield f"| method | {' | '.join(heads)} |"
    yield "|---|" + "---:|" * len(heads)
    for name in table.names:
        cells = [table.cell(name, ratio) for ratio in table.ratios]
        if any(cells) and name[0] != "random":
            rows = [cell.rows[0] if cell else None for cell in cells]
            same = [_agrees(row) if row else "-" for row in rows]
            factor = [f"x {row.perplexity_ratio:.3g}" if row else "-" for row in rows]
            yield f"| {label(name)} | {' | '.join([*same, *factor])} |"
    yield ""


def _agrees(row: Row) -> str:
    return f"{100 * (row.agreement or 0):.1f} ± {100 * (row.agreement_error or 0):.1f}"


def _dropped(table: Table) -> Iterator[str]:
    yield "## Dropped layers\n"
    yield "![The layers that each method drops](study-real-dropped.png)\n"
    yield from dropped_layers(table)


def _layers(layers: Sequence[Layer]) -> Iterator[str]:
    """Name the layers that similarity is blind to."""
    if not layers:
        return
    yield "## Layer by layer\n"
    yield "![Loss without each layer, and its similarity](study-real-layers.png)\n"
    yield from unseen(layers)


def _sparse(table: Table) -> Iterator[str]:
    rows = [row for row in table.rows if row.weights == row.method and row.rise is not None]
    cells = [(row.method, Cell((row,))) for row in rows]
    if cells:
        yield "## 2:4 sparsity\n"
        yield "No layer goes, and half of the weights of the decoder's linear layers are zero.\n"
        yield "| method | rise |\n|---|---:|"
        yield from (f"| `{method}` | {cell.text} |" for method, cell in cells)
        yield ""


def _costs(facts: Facts) -> Iterator[str]:
    yield "## Cost of the measurements\n"
    yield f"Similarity is measured on {facts.prompts} prompts. Losses are"
    yield f"measured on the answers of {facts.loss_rows} rows, those of `search` on those of"
    yield f"{facts.search_rows} in {facts.passes} passes, and weights are fitted on"
    yield f"{facts.fitted_rows}.\n"
    yield "| measurement | seconds of one core |\n|---|---:|"
    yield from (f"| {name} | {seconds:,.0f} |" for name, seconds in facts.seconds.items())
    yield ""


def _missing(table: Table, facts: Facts) -> Iterator[str]:
    yield "## Not applicable, not feasible\n"
    names = ", ".join(f"`{name}`" for name in facts.not_served)
    yield f"Not applicable: {names}. They read measurements on probes, which are instructions about"
    yield "images; this model has no images.\n"
    reasons: dict[tuple[str, float, str], list[str]] = {}
    for row in table.rows:
        if row.reason:
            reasons.setdefault((row.method, row.ratio, row.reason), []).append(row.protect)
    for (method, ratio, reason), protections in reasons.items():
        protected = "" if "none" in protections else ", protected"
        yield f"- `{method}`{protected} at {percent(ratio)}: {reason}"
