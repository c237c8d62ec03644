"""The page of the study on real weights says what its rows say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from studies.real_and_demo import HEADING, Measured, compared, with_section
from studies.real_losses import HeldoutLosses, agreement, read_losses, rise, z_score
from studies.real_page import WHICH, write_pages
from studies.real_page import page as page_text
from studies.real_rows import Facts, Layer, Row, Variant, read_rows, scored, write_rows
from studies.real_rules import RULES
from studies.real_rules_page import MEANING
from studies.real_table import Table

RATIOS = (0.1, 0.25, 0.4)
RULE = "by inverse norm"
DEMO = """method,ratio,seed,benchmark,score,dropped
interlace,0.25,0,a,90.0,1
interlace,0.25,0,b,92.0,1
taylor,0.25,0,a,95.0,2
taylor,0.25,0,b,97.0,2
sleb,0.25,0,a,95.0,3
sleb,0.25,0,b,97.0,3
"""
FACTS = Facts(
    n_layers=30,
    heldout=(50, 12000),
    prompts=60,
    loss_rows=4,
    search_rows=8,
    passes=20,
    fitted_rows=20,
    dense_loss=3.0,
    seconds={},
    not_served=(),
    rules=(RULE, "map before cuts", "cosine"),
    machine="2 cores",
)
RISES = {  # at 25%
    ("interlace", "none"): 3.0,
    ("interlace", "auto"): 1.2,
    ("angular-block", "none"): 0.5,
    ("angular-block", "auto"): 0.5,
    ("taylor", "none"): 5.0,
    ("taylor", "auto"): 5.0,
    ("search", "none"): 0.4,
    ("search", "auto"): 0.4,
}

OTHER_RULES = (
    ("search", 0.3, "map before cuts"),
    ("search", 0.28, "cosine"),
    ("angular-block", 0.25, "map before cuts"),
    ("angular-block", 0.26, "cosine"),
)


def row(method: str, ratio: float, protect: str, value: float, **other: object) -> Row:
    drops = {("interlace", "none"): (3, 11), ("interlace", "auto"): (3, 10)}
    made = Row(method, ratio, protect, dropped=drops.get((method, protect), (5, 6)))
    numbers = {"rise": value, "error": 0.02, "agreement": 0.5, "agreement_error": 0.01}
    numbers |= {"perplexity_ratio": 2.0, "z": 1.0 if method == "taylor" else 9.0}
    return replace(made, **(numbers | other))  # type: ignore[arg-type]


@pytest.fixture
def rows() -> list[Row]:
    rows = []
    for (method, protect), value in RISES.items():
        for factor, ratio in zip((0.5, 1.0, 2.0), RATIOS, strict=True):
            rows.append(row(method, ratio, protect, factor * value))
            worse = method == "taylor"
            share = 1.1 if worse else 0.6
            rows.append(row(method, ratio, protect, share * factor * value, weights=RULE))
    rows += [
        row("random", 0.25, "none", 1.0 + seed, seed=seed, dropped=(seed,)) for seed in (0, 1, 2)
    ]
    for name, value, rule in OTHER_RULES:
        rows.append(row(name, 0.25, "none", value, weights=rule))
    rows.append(Row("interlace-oa", 0.4, reason="12 layers cannot be dropped"))
    rows.append(row("wanda-2:4", 0.0, "none", 0.9, weights="wanda-2:4"))
    return rows


@pytest.fixture
def page(rows: list[Row], tmp_path: Path) -> str:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "methods.md").write_text(f"# A\n\n{WHICH}\n\nold\n\n## INTERLACE\n")
    (folder / "study-methods.csv").write_text(DEMO)
    (folder / "study-methods.md").write_text("# Demo\n\n## Scores\n\ntable\n")
    layers = [
        Layer(i, 0.9 - i / 100, 0.5, 2.0, 1.0 + (i == 11) + i / 50, i == 11) for i in range(12)
    ]
    facts = replace(FACTS, seconds={"sleb": 400.0}, not_served=("cka",))
    write_pages(rows, layers, facts, folder)
    return (folder / "study-real.md").read_text()


def test_the_page_says_what_protection_does_to_interlace(page: str) -> None:
    pair = "3.000 ± 0.020 as published, 1.200 ± 0.020 with `protect: auto`"
    assert f"- INTERLACE at 25%: {pair}, 0.40 of it." in page
    assert "| interlace | 25% | 11 | 3.000 ± 0.020 | 1.200 ± 0.020 | 0.40 |" in page


def test_the_page_names_methods_that_chance_does_not_part_from_the_best(page: str) -> None:
    line = next(line for line in page.splitlines() if line.startswith("- 25%: search loses least"))
    assert line == "- 25%: search loses least, 0.400 ± 0.020; within 2 paired errors of it: taylor."


def test_choices_that_protection_does_not_change_have_one_row(page: str) -> None:
    assert "| interlace (protected) |" in page
    assert "| angular-block (protected) |" not in page
    assert "Protection changes no choice of angular-block, interlace-oa, search, taylor." in page


def test_the_page_sets_search_beside_the_best_other_method(page: str) -> None:
    best = "the best other method (angular-block, 0.500 ± 0.020)"
    assert f"- `search` at 25%: 0.400 ± 0.020, 0.80 of {best}" in page
    assert "; compensated 0.240 ± 0.020, 0.48 of it." in page


def test_the_page_names_methods_that_compensation_harms(page: str) -> None:
    assert "- 25%: it lowers the rise of 4 of 5 choices, not of taylor." in page


def test_the_page_compares_rules_on_the_choices_that_several_were_tried_on(page: str) -> None:
    assert "| rule | search, 25% | angular-block, 25% |" in page
    assert "| plain | 0.400 ± 0.020 | 0.500 ± 0.020 |" in page
    assert f"| {RULE} | 0.240 ± 0.020 | 0.300 ± 0.020 |" in page
    assert "| cosine | 0.280 ± 0.020 | 0.260 ± 0.020 |" in page


def test_the_page_says_how_often_and_how_far_another_rule_lowers_the_rise(page: str) -> None:
    differences = page[page.index("- ReplaceMe's cosine, not its") :].splitlines()[:2]
    changes = [line.partition(": ")[2] for line in differences]
    assert changes[0] == "lower on 1 of 2 choices, -0.005 on average (-0.020 to +0.010)."
    assert changes[1] == "lower on 1 of 2 choices, +0.000 on average (-0.040 to +0.040)."
    assert "not only those before cuts:" not in page  # no row has that rule


def test_each_rule_of_compensation_is_explained() -> None:
    assert tuple(MEANING) == RULES


def test_draws_have_a_mean_and_a_spread(page: str) -> None:
    assert "| random | - | 2.00 ± 1.00 (1.00 to 3.00) | - |" in page
    assert "- 25%: 0 of 3 draws are better than the best method (search)." in page


def test_the_page_names_layers_that_similarity_does_not_see(page: str) -> None:
    assert "Layers that make or end a massive activation: 11." in page
    assert "The 2 layers without which, each alone, the loss is greatest: 10 11." in page


def test_both_pages_say_where_they_disagree(page: str, tmp_path: Path) -> None:
    assert "| 25% | 2 | 1 | 1 | 1 | 1 |".replace("2 | 1", "1 | 1", 1) in page
    assert "- 25%: `interlace` is better here and worse on the demo than `taylor`." in page
    other = (tmp_path / "docs/study-methods.md").read_text()
    assert "\n\n## Scores\n\ntable\n\n## Beside real weights\n" in other
    assert "`interlace` is better on real weights and worse here than `taylor`." in other


def test_the_page_says_what_was_not_measured_and_why(page: str) -> None:
    assert "Not applicable: `cka`." in page
    assert "- `interlace-oa` at 40%: 12 layers cannot be dropped" in page
    assert "| `wanda-2:4` | 0.900 ± 0.020 |" in page


def test_the_table_of_methods_has_the_best_of_each_cost(page: str) -> None:
    lines = page[page.index("## Which method to take") :].splitlines()
    assert (
        "| prompts, one pass | `angular-block` 0.25 → 0.15 | `angular-block` 0.50 → 0.30 |"
        in "\n".join(lines)
    )
    assert any(line.startswith("| answers, with gradients | `taylor` 2.50") for line in lines)


def test_the_page_of_methods_has_the_table_of_the_best_ones(page: str, tmp_path: Path) -> None:
    methods = (tmp_path / "docs/methods.md").read_text()
    table = [line for line in page.splitlines() if line.startswith("| prompts, one pass |")]
    assert table[0] in methods.splitlines() and "old" not in methods
    assert methods.startswith(
        "# A\n\nOn this page:\n\n- [Which method to take](#which-method-to-take)\n"
    )
    assert methods.index(WHICH) < methods.index("## INTERLACE")


def test_the_pages_that_the_study_refreshes_have_its_sections() -> None:
    docs = Path(__file__).parents[2] / "docs"
    assert f"\n{WHICH}\n" in (docs / "methods.md").read_text()
    assert f"\n{HEADING}\n" in (docs / "study-methods.md").read_text()


def test_a_page_of_one_row_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "demo.csv").write_text(DEMO)
    table = Table([row("interlace", 0.25, "none", 1.0)], RULE)
    assert "| interlace | 1.000 ± 0.020 | - |" in page_text(table, [], FACTS, tmp_path / "demo.csv")


def test_rows_survive_their_file(rows: list[Row], tmp_path: Path) -> None:
    write_rows(rows, tmp_path / "rows.csv", Row)
    for row, same in zip(rows, read_rows(tmp_path / "rows.csv"), strict=True):
        assert replace(same, rise=None) == replace(row, rise=None)
        assert same.rise == pytest.approx(row.rise)


def losses(*by_row: float, choices: tuple[int, ...] = (1, 2, 3, 4, 5, 6)) -> HeldoutLosses:
    return HeldoutLosses(np.array(by_row), np.array([1, 2, 3]), np.array(choices, np.int32))


def test_a_rise_is_a_ratio_of_sums_with_its_paired_error() -> None:
    value, error = rise(losses(2.0, 4.0, 7.0), losses(1.0, 2.0, 3.0))
    assert value == pytest.approx(7 / 6)
    residual = np.array([1, 2, 4]) - 7 / 6 * np.array([1, 2, 3])
    assert error == pytest.approx(np.sqrt(3 / 2 * (residual**2).sum()) / 6)
    assert rise(losses(3.0, 6.0, 9.0), losses(1.0, 2.0, 3.0))[1] == 0


def test_agreement_counts_equal_first_choices() -> None:
    share, _ = agreement(losses(1, 1, 1), losses(1, 1, 1, choices=(1, 2, 0, 4, 0, 6)))
    assert share == pytest.approx(4 / 6)


def test_losses_survive_their_file(tmp_path: Path) -> None:
    one = losses(1.0, 2.0, 3.5)
    one.write(tmp_path / "one.parquet")
    same = read_losses(tmp_path / "one.parquet")
    assert same is not None and same.mean == one.mean
    assert np.array_equal(same.choices, one.choices)
    (tmp_path / "one.parquet").write_bytes(b"cut")
    assert read_losses(tmp_path / "one.parquet") is None


def test_z_is_against_the_best_row_of_the_same_ratio_and_kind() -> None:
    dense, good, bad = losses(1, 2, 3), losses(2, 4, 6.5), losses(3, 7, 8)
    models = {Variant(): dense, Variant((1,)): good, Variant((2,)): bad, Variant((2,), RULE): bad}
    rows = [Row("a", 0.25, dropped=(1,)), Row("b", 0.25, dropped=(2,))]
    rows.append(Row("b", 0.25, dropped=(2,), weights=RULE))
    first, second, third = scored(rows, models)
    assert (first.z, third.z) == (0, 0)
    assert second.z == pytest.approx(z_score(bad, good)) and second.z > 0


def test_methods_are_compared_in_pairs_that_differ_on_both_models() -> None:
    demo = {"a": Measured(10, 0.5), "b": Measured(5, 0.5), "c": Measured(10.5, 0.5)}
    real = {"a": Measured(0.5, 0.02), "b": Measured(0.9, 0.02), "c": Measured(0.51, 0.02)}
    found = compared(demo, real)
    assert (found.pairs, found.demo, found.real, found.both) == (3, 2, 2, 2)
    assert list(found.opposite) == [("a", "b"), ("c", "b")]


def test_a_section_replaces_itself() -> None:
    text = with_section("# A\n\n## B\n\nold\n\n## C\n\nkept\n", "## B\n\nnew\n")
    assert text == "# A\n\n## B\n\nnew\n\n## C\n\nkept\n"
    assert with_section("# A\n", "## B\n\nnew\n") == "# A\n\n## B\n\nnew\n"
