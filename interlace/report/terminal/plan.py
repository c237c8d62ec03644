"""The map of layers and the reasons for it, for the terminal: the caller prints them.

Colour is never the only sign: roles are letters, and everything fits 80 columns.
"""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.text import Text

from interlace.plan.record import Group, Plan
from interlace.plan.runtimes import misreadings
from interlace.printable import printable
from interlace.report.facts.decision import asked, listed, notes, number, outcome, score_name
from interlace.report.facts.roles import layer_roles, roles_present
from interlace.report.facts.wording import NONE
from interlace.report.terminal.console import PlainTable, plain_text
from interlace.report.terminal.strips import LABEL, glyph, legend, lines, ruler

TO = "\u2013"


def layer_map_text(plan: Plan) -> Text:
    """Show a letter per layer, its group underneath, the meaning of the letters, and notes."""
    roles = layer_roles(plan)
    text = plain_text(f"{asked(plan)}\n", "bold")
    text.append(f"{outcome(plan)}\n", style="not bold")
    for layers in lines(plan.n_layers):
        text.append_text(ruler(layers))
        text.append("\n" + "dense".ljust(LABEL))
        for layer in layers:
            text.append(*glyph(roles[layer]))
        for name, marks in _brackets(plan).items():
            if visible := marks[layers.start : layers.stop].rstrip():
                text.append("\n" + name.ljust(LABEL) + visible, style="not bold")
        text.append("\n")
    for layers in lines(len(plan.keep)):
        text.append("pruned".ljust(LABEL))
        for position in layers:
            text.append(*glyph(roles[plan.keep[position]]))
        text.append("\n")
    text.append_text(legend(roles_present(plan), roles))
    for note in [*notes(plan), *misreadings(plan)]:
        text.append(f"\n{printable(note)}", style="not bold yellow")
    return text


def _brackets(plan: Plan) -> dict[str, str]:
    """Mark each group of two layers or more by round, one character per layer.

    The groups of one round are disjoint; those of two may share an anchor. Layers between that
    belong to none, because an earlier round dropped them, are left blank.
    """
    rows = {}
    for number_of_round in range(1, plan.rounds + 1):
        marks = [" "] * plan.n_layers
        for group in plan.groups:
            if group.span > 1 and group.round == number_of_round:
                for layer in group.layers:
                    marks[layer] = "─"
                marks[group.first], marks[group.layers[-1]] = "└", "┘"
        rows["groups" if plan.rounds == 1 else f"round {number_of_round}"] = "".join(marks)
    return rows


def _of_the_two(group: Group) -> str:
    """Write the scores that decided a group's roles; the second layer may have none."""
    scores = [number(score) for score in group.layer_scores]
    return " ".join([*scores, NONE] if len(scores) == 1 else scores)


def groups_table(plan: Plan) -> PlainTable | None:
    """List the groups in the order of decision with their scores; None where nothing was scored.

    At most 80 columns.
    """
    groups = plan.groups
    names = list(dict.fromkeys(score_name(plan, g) for g in groups if g.score is not None))
    if not names:
        return None
    prefixes = {name: f"{name} " if name != "score" and len(names) > 1 else "" for name in names}
    layer_score = "pooled" if names == ["pooled"] else "S_1"
    alone = all(group.span == 1 for group in groups)
    columns: dict[str, list[str]] = {
        "#": [str(order) for order in range(1, len(groups) + 1)],
        "round": [str(g.round) if plan.rounds > 1 else "" for g in groups],
        "layers": ["" if alone else listed(g.layers, TO) for g in groups],
        "kind": [g.kind for g in groups],
        "score" if len(names) > 1 else names[0]: [
            NONE if g.score is None else prefixes[score_name(plan, g)] + number(g.score)
            for g in groups
        ],
        f"{layer_score} of the two": [_of_the_two(g) for g in groups],
        "dropped": [listed(g.drop, TO) for g in groups],
        "tuned": [listed(g.tune, TO) if g.tune else "" for g in groups],
        "anchor": ["" if g.anchor is None else str(g.anchor) for g in groups],
    }
    filled = {heading: cells for heading, cells in columns.items() if any(cells)}
    table = PlainTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for heading in filled:
        table.add_column(heading, justify="left" if heading == "kind" else "right")
    for row in zip(*filled.values(), strict=True):
        table.add_row(*row)
    return table
