"""The README's results are those of the studies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from studies.readme import refresh_readme
from studies.real_healing_rows import Row as HealedRow
from studies.real_rows import read_rows, write_rows

ROOT = Path(__file__).parents[2]
TABLES = ("study-real.csv", "study-real-healing.csv")


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A copy of the README, and of the studies' tables in a folder beside it."""
    folder = tmp_path / "docs"
    folder.mkdir()
    shutil.copy(ROOT / "README.md", tmp_path)
    for name in TABLES:
        shutil.copy(ROOT / "docs" / name, folder)
    return folder


def test_the_readme_has_the_results_of_the_studies(docs: Path) -> None:
    refresh_readme(docs)
    assert (docs.parent / "README.md").read_text() == (ROOT / "README.md").read_text()


def test_a_new_number_replaces_the_old_one(docs: Path) -> None:
    for name, old, new in (
        ("study-real.csv", "interlace,0.25,none,0,plain,3 6 11 14 17 19 25,,3.49497,", "9.87654,"),
        ("study-real-healing.csv", "interlace,0.25,pruned,False,0,0,3 6 14 17 19 22 25,", ""),
    ):
        text = (docs / name).read_text()
        assert old in text
        changed = old.replace("3.49497,", new) if new else "other,0.4,pruned,False,0,0,1,"
        (docs / name).write_text(text.replace(old, changed))
    refresh_readme(docs)
    readme = (docs.parent / "README.md").read_text()
    assert "`interlace` as published 9.88 → " in readme and "3.49 → " not in readme
    assert "| `interlace` |" not in readme and "| `angular-block` |" in readme


def test_a_readme_without_the_block_stays_as_it_is(docs: Path) -> None:
    readme = docs.parent / "README.md"
    readme.write_text("# Mine\n")
    refresh_readme(docs)
    assert readme.read_text() == "# Mine\n"


def test_nothing_is_written_before_both_studies_have_rows(docs: Path) -> None:
    (docs / TABLES[1]).unlink()
    before = (docs.parent / "README.md").read_bytes()
    refresh_readme(docs)
    assert (docs.parent / "README.md").read_bytes() == before


def test_rows_of_healed_models_survive_their_file(tmp_path: Path) -> None:
    rows = [
        HealedRow("interlace", 0.25, "pruned", False, 0, 0.0, (1, 2), ()),
        HealedRow("interlace", 0.25, "local", True, 1, 1e-3, (1,), (2,), own=0.5, own_error=0.1),
    ]
    write_rows(rows, tmp_path / "rows.csv", HealedRow)
    assert read_rows(tmp_path / "rows.csv", HealedRow) == rows
