"""The page of the study of healing on real weights, computed from the rows of its models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

from studies.contents import with_contents
from studies.readme import refresh_readme
from studies.real_healing_figure import draw_rises
from studies.real_healing_rows import Facts, Row
from studies.real_healing_runs import (
    ANGULAR,
    CONSECUTIVE,
    INTERLACE,
    LOCAL,
    PRUNED,
    RATES_FROM,
    RECIPE,
    RECIPE_OWN,
    STAND_IN,
    WAYS,
)
from studies.real_healing_table import HealedTable, Value, named, plan_named
from studies.real_rows import write_rows
from studies.real_table import percent

HALF, NEAR, LEFT, GAIN = 0.5, 0.25, 0.4, 0.3  # the targets
NAME = "study-real-healing"


def write_pages(rows: Sequence[Row], facts: Facts, folder: Path, missing: int = 0) -> None:
    """Write the page, the table of all rows and the figure.

    Args:
        rows: all models so far.
        facts: what the page says beside them.
        folder: to write into.
        missing: number of models that are still to be measured.
    """
    table = HealedTable(rows)
    write_rows(rows, folder / f"{NAME}.csv", Row)
    (folder / f"{NAME}.md").write_text(page(table, facts, missing), encoding="utf-8")
    draw_rises(table, folder / f"{NAME}.png")
    refresh_readme(folder)


def page(table: HealedTable, facts: Facts, missing: int) -> str:
    """Return the text of study-real-healing.md."""
    sections = [_head(facts, missing), *_ways(), *_targets(table), *_local(table)]
    sections += _section(table, "Rise on the dense model's own answers", "own", str)
    sections += _section(table, "Rise on answers drawn from its distribution", "sampled", str)
    sections += _section(table, "Rise on the data's answers", "labels", str)
    sections += _section(table, "Agreement of first choices", "agreement", lambda v: v.percent)
    sections += [*_plans(table), *_rates(table), *_costs(table, facts)]
    return with_contents("\n".join(sections).rstrip() + "\n")


def _head(facts: Facts, missing: int) -> str:
    sizes, tokens, train = facts.sizes, facts.tokens, facts.sheets["train", "own"]
    rows = facts.heldout["own"][0]
    unfinished = (
        f" {missing} models are not measured yet, the second seed's last." if missing else ""
    )
    return f"""# Healing a real pretrained decoder

SmolLM2-135M-Instruct loses 25 or 40% of its {facts.n_layers} layers and is healed in several ways,
all on the same {train.rows} prompts and as many tokens: {tokens["labels"]:,} with the data's
answers, {tokens["own"]:,} with the dense model's own. Models are judged on {rows} prompts of
packages that no training row comes from ([how the rows are made](../data/smollm2/README.md)).

Own answers are the dense model's greedy ones, as `evaluate` asks for them. Answers drawn from its
distribution are a second text: the rise on them estimates the divergence of a model from the dense
one. Answers end after {sizes.answer} tokens, {100 * train.cut_share:.0f}% of the own ones by that
bound. A rise is the loss of the model minus that of the dense model, in nats per answer token. ± is
one standard error, paired row by row, over a model's seeds; seeds change the order of rows. Prompts
to train on keep their last {sizes.prompt} tokens.

| text | held-out answer tokens | dense model's loss |
|---|---:|---:|
{_texts(facts)}

`{INTERLACE}` and the other methods spare sink layers (`select.protect: auto`). At 40% `{INTERLACE}`
runs out of triplets and pairs, and `{STAND_IN}` stands for it.

    make study-real-healing

takes hours on two cores and resumes where it stopped.{unfinished}
[{NAME}.csv]({NAME}.csv) holds all models; those that it has are not healed again, until it is
deleted.
Measured on {facts.machine}: training in bfloat16, scores in float32.

![Rise of the loss by plan and way]({NAME}.png)
"""


def _texts(facts: Facts) -> str:
    names = {"own": "own answers", "sampled": "drawn answers", "labels": "the data's answers"}
    lines = (
        f"| {names[text]} | {tokens:,} | {facts.dense[text]:.3f} |"
        for text, (_, tokens) in facts.heldout.items()
    )
    return "\n".join(lines)


def _ways() -> Iterator[str]:
    yield "## Ways\n"
    yield from (f"- `{name}`: {way.meaning};" for name, way in WAYS.items())
    yield "- compensated, then each: the same from least-squares compensated weights.\n"


def _section(
    table: HealedTable, title: str, number: str, shown: Callable[[Value], str]
) -> Iterator[str]:
    """Tabulate a number of all models that have it: a row for each way, a column for each plan."""
    values = {
        (start, cell): value
        for start in table.starts
        for cell in table.cells
        if (value := table.value(cell, start, number))
    }
    plans = [cell for cell in table.cells if any(column == cell for _, column in values)]
    yield f"## {title}\n"
    yield f"| | {' | '.join(map(plan_named, plans))} |"
    yield "|---|" + "---:|" * len(plans)
    for start in dict.fromkeys(way for way, _ in values):
        row = (values.get((start, cell)) for cell in plans)
        yield f"| {named(start)} | {' | '.join(shown(v) if v else '-' for v in row)} |"
    yield ""


def _targets(table: HealedTable) -> Iterator[str]:
    yield "## What the rows say\n"
    yield from _halved(table)
    yield from _nearest(table)
    yield from _consecutive(table)
    yield ""


def _halved(table: HealedTable) -> Iterator[str]:
    """Compare what own answers leave with what the recipe on labels leaves."""
    yield "| plan | pruned | recipe on labels | the same on own answers | best way on own answers |"
    yield "|---|---:|---:|---:|---:|"
    reached: dict[str, list[bool]] = {"the recipe": [], "the best way": []}
    for cell in table.cells:
        pruned, labels, own = (table.value(cell, (w, False)) for w in (PRUNED, RECIPE, RECIPE_OWN))
        best = table.best(cell, by_labels=False)
        if not (pruned and labels and own and best):
            continue
        shares = [value.mean / labels.mean for value in (own, best[1])]
        for name, share in zip(reached, shares, strict=True):
            reached[name].append(share <= HALF)
        yield (
            f"| {plan_named(cell)} | {pruned} | {labels} | {own}, {shares[0]:.0%} of it"
            f" | {named(best[0])}: {best[1]}, {shares[1]:.0%} |"
        )
    yield ""
    for name, plans in reached.items():
        if plans:
            yield (
                f"- On own answers, {name} leaves at most half of what the recipe on labels"
                f" leaves: {sum(plans)} of {len(plans)} plans."
            )


def _nearest(table: HealedTable) -> Iterator[str]:
    for ratio in dict.fromkeys(ratio for _, ratio in table.cells):
        ends = [
            (best[1].mean, cell, best)
            for cell in table.cells
            if cell[1] == ratio and (best := table.best(cell))
        ]
        if not ends:
            continue
        _, cell, (start, value) = min(ends)
        before = table.value(cell, (PRUNED, False))
        share = f", {value.mean / before.mean:.0%} of the rise before healing" if before else ""
        yield (
            f"- Nearest to the dense model at {percent(ratio)}: {plan_named(cell)}, {named(start)},"
            f" {value}{share}."
        )


def _consecutive(table: HealedTable) -> Iterator[str]:
    for cell in table.cells:
        recipe, best = table.value(cell, (RECIPE, False)), table.best(cell)
        if cell[0] != CONSECUTIVE or not (recipe and best):
            continue
        gain = table.value(cell, best[0], "gain")
        if gain:
            verb = "at least" if gain.mean >= GAIN * recipe.mean else "less than"
            yield (
                f"- {plan_named(cell)}: {named(best[0])} lowers the rise that the recipe on labels"
                f" leaves by {gain}, {gain.mean / recipe.mean:.0%}; that is {verb} {GAIN:.0%}."
            )


def _local(table: HealedTable) -> Iterator[str]:
    """Set local healing beside the recipe after long runs of dropped layers."""
    cells = [cell for cell in table.cells if cell[0] in (ANGULAR, CONSECUTIVE)]
    pairs = [
        (cell, table.value(cell, (LOCAL, False)), table.value(cell, (RECIPE_OWN, False)))
        for cell in cells
    ]
    lines = [
        f"- {plan_named(cell)}: local {local}, recipe {recipe}."
        for cell, local, recipe in pairs
        if local and recipe
    ]
    if lines:
        yield "## Local healing after long runs\n"
        yield "Both on the dense model's own answers:\n"
        yield from [*lines, ""]


def _plans(table: HealedTable) -> Iterator[str]:
    yield "## Plans\n\n| plan | dropped | tuned |\n|---|---|---|"
    for cell in table.cells:
        row = table.of(cell, (PRUNED, False))[0]
        layers = (" ".join(map(str, layers)) for layers in (row.dropped, row.tuned))
        yield f"| {plan_named(cell)} | {' | '.join(layers)} |"
    yield ""


def _rates(table: HealedTable) -> Iterator[str]:
    searches = list(table.searches())
    if not searches:
        return
    yield "## Learning rates\n"
    yield "Chosen by the loss on the dense model's own answers to validation prompts, with seed 0."
    shared = [f"{plan_named(a)} takes those of {plan_named(b)}" for a, b in _shared(table)]
    yield f"{'; '.join(shared)}.\n" if shared else ""
    yield "| plan | way | loss by learning rate |\n|---|---|---|"
    for cell, start, losses in searches:
        best = min(losses, key=lambda rate: (losses[rate], rate))
        shown = [
            f"**{rate:g}: {loss:.3f}**" if rate == best else f"{rate:g}: {loss:.3f}"
            for rate, loss in sorted(losses.items())
        ]
        if len(losses) > 1:
            yield f"| {plan_named(cell)} | {named(start)} | {', '.join(shown)} |"
    yield ""


def _shared(table: HealedTable) -> list[tuple[tuple[str, float], tuple[str, float]]]:
    return [(a, b) for a, b in RATES_FROM.items() if a != b and a in table.cells]


def _costs(table: HealedTable, facts: Facts) -> Iterator[str]:
    yield "## Cost of a training\n"
    yield "| way | seconds of one core, mean |\n|---|---:|"
    for way in WAYS:
        seconds = [row.seconds for row in table.rows if row.way == way and row.seconds]
        if seconds:
            yield f"| {way} | {fmean(seconds):.0f} |"
    yield ""
