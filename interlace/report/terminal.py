"""The map of layers for the terminal: the caller prints it.

Colour is never the only sign: roles are letters, and everything fits 80 columns.
"""

from __future__ import annotations

from rich.text import Text

from interlace.plan import Plan
from interlace.report.roles import Role, layer_roles, roles_present
from interlace.report.ruler import LABEL, lines, ruler


def _glyph(role: Role) -> tuple[str, str]:
    ink = "black" if role in (Role.FREEZE, Role.PROTECTED) else "bold white"
    return role.letter, f"{ink} on {role.colour}"


def _brackets(plan: Plan) -> str:
    """A mark under each group of two layers or more, one character per layer."""
    marks = [" "] * plan.n_layers
    for group in plan.groups:
        if group.span > 1:
            inside = "─" * (group.span - 2)
            marks[group.first : group.first + group.span] = f"└{inside}┘"
    return "".join(marks)


def layer_map_text(plan: Plan) -> Text:
    """One letter per layer, its group underneath, and what the letters mean."""
    roles, brackets = layer_roles(plan), _brackets(plan)
    text = Text(f"{plan.method} at {100 * plan.ratio:g}%: {plan.n_layers} layers, ", style="bold")
    text.append(f"{len(plan.keep)} kept\n")
    for layers in lines(plan.n_layers):
        text.append_text(ruler(layers))
        text.append("\n" + "dense".ljust(LABEL))
        for layer in layers:
            text.append(*_glyph(roles[layer]))
        if marks := brackets[layers.start : layers.stop].rstrip():
            text.append("\n" + "groups".ljust(LABEL) + marks)
        text.append("\n")
    for layers in lines(len(plan.keep)):
        text.append("pruned".ljust(LABEL))
        for position in layers:
            text.append(*_glyph(roles[plan.keep[position]]))
        text.append("\n")
    text.append(" " * LABEL)
    for role in roles_present(plan):
        text.append(*_glyph(role))
        text.append(f" {role.meaning} {roles.count(role)}  ")
    text.rstrip()
    if note := shortfall_note(plan):
        text.append(f"\n{note}", style="yellow")
    return text


def shortfall_note(plan: Plan) -> str:
    """What happened when the method's own rule could not reach K; empty when it could."""
    short = plan.shortfall
    if short.missing:
        return f"{short.wanted} drops wanted, {short.missing} not made: triplets ran out"
    if short.pairs:
        return f"triplets ran out: {short.pairs} of {short.wanted} drops come from pairs"
    return ""
