from __future__ import annotations

import re

import pytest
from report.report_cases import full_scores, shown, shown_lines
from rich.cells import cell_len

from interlace.methods.registry import METHODS
from interlace.report.facts.roles import layer_roles
from interlace.report.terminal.methods import methods_table, removals_text, rule_of
from interlace.scores.table import CKA
from interlace.selection.select import select


def test_every_method_has_its_line() -> None:
    lines = shown_lines(methods_table(full_scores()), 200)
    for name, rule in METHODS.items():
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert re.fullmatch(r"[A-Z].{20,}[.:]", rule_of(name)) and rule_of(name) in line
        assert f"[{', '.join(rule.needs) or 'nothing'}]" in line


def test_what_was_not_measured_is_marked_with_the_way_to_measure_it() -> None:
    lines = shown_lines(methods_table(full_scores(without=CKA)), 200)
    marks = {line.split()[0]: line.split()[1] for line in lines if line.split()[0] in METHODS}
    assert [name for name, mark in marks.items() if mark == "no"] == ["cka"]
    assert lines[-1].startswith("not measured: cka; `collect` measures it on the probes")
    assert "measured" not in shown(methods_table())


def test_each_strip_is_what_select_decides() -> None:
    scores = full_scores(24, 3)
    lines = shown_lines(removals_text(scores, 0.25, seed=5), 200)
    for name in ("interlace", "random", "mixed", "sleb"):
        letters = "".join(
            role.letter for role in layer_roles(select(scores, method=name, ratio=0.25, seed=5))
        )
        assert lines[lines.index(f"{name:<18}{letters}") + 1].strip() == rule_of(name)


@pytest.mark.parametrize("n_layers", [24, 36, 64])
def test_the_overview_fits_80_columns(n_layers: int) -> None:
    lines = shown_lines(removals_text(full_scores(n_layers), 0.25), 120)
    strips = [line.rstrip() for line in lines if re.search(r"[DTAPF]{4}", line)]
    assert len(strips) == 16 * (1 + (n_layers > 60))
    assert max(map(cell_len, strips)) <= 80
    assert max(cell_len(line) for line in shown_lines(methods_table(full_scores(n_layers)))) <= 80


def test_the_numbers_stand_over_their_layers() -> None:
    lines = shown_lines(removals_text(full_scores(24, 3), 0.25))
    assert lines[1].index("5") - lines[1].index("0") == 5
    strip = next(line for line in lines if line.startswith("interlace "))
    assert strip[lines[1].index("0") :][:3] == "PPP"
