"""A stage's digest changes with what its code does, and with nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages.digests import ROOT, code_digests, code_of, stage_names

SOURCE = code_digests()
STAGES = SOURCE.keys() - {"modules"}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for package in ("interlace", "stages"):
        ignore = shutil.ignore_patterns("__pycache__", "files")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignore)
    return tmp_path


def changed(clone: Path) -> set[str]:
    """The stages whose digest an edit changed."""
    digests = code_digests(clone)
    return {stage for stage in STAGES if digests[stage] != SOURCE[stage]}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def reaching(*files: str) -> set[str]:
    """The stages that reach one of some files."""
    return {stage for stage in STAGES if {ROOT / file for file in files} & code_of(stage)}


def test_there_is_a_digest_of_every_stage_but_pin() -> None:
    assert set(stage_names()) - {"pin"} == STAGES
    assert {"collect", "select", "evaluate", "report"} <= STAGES


def test_digests_hold_wherever_the_code_lies(clone: Path) -> None:
    assert code_digests(clone) == SOURCE


def test_digests_are_the_same_where_the_stages_are_a_part_of_the_library(clone: Path) -> None:
    shutil.rmtree(clone / "interlace/stages")
    (clone / "stages").rename(clone / "interlace/stages")
    assert code_digests(clone) == SOURCE


def test_the_installed_stages_digest_the_installed_files(clone: Path) -> None:
    shutil.rmtree(clone / "interlace/stages")
    (clone / "stages").rename(clone / "interlace/stages")
    code = f"import sys; sys.path.insert(0, {str(clone)!r}); from interlace.stages import digests"
    assert output_of(f"{code}; print(digests.ROOT)") == f"{clone}\n"


def test_comments_docstrings_and_help_change_no_digest(clone: Path) -> None:
    for path in (*clone.glob("interlace/**/*.py"), *clone.glob("stages/*.py")):
        path.write_text(path.read_text() + "\n# a comment\n")
    edit(clone / "stages/collect.py", '"""Run the dense model', '"""Send the dense model')
    edit(clone / "interlace/params/healing.py", 'description="', 'description="other words, ')
    edit(clone / "stages/evaluate.py", "required=True", 'required=True, help="Other words."')
    assert changed(clone) == set()


@pytest.mark.parametrize(
    "file", ["stages/collect.py", "interlace/model/chat.py", "interlace/errors.py"]
)
def test_an_edit_changes_the_digests_of_the_stages_that_reach_it(clone: Path, file: str) -> None:
    path = clone / file
    path.write_text(path.read_text() + "\nADDED = 1\n")
    assert changed(clone) == reaching(file) != set()
    modules = code_digests(clone)["modules"]
    assert {name for name in modules if modules[name] != SOURCE["modules"][name]} == {file}


def test_a_color_changes_the_digest_of_report_alone(clone: Path) -> None:
    path = clone / "interlace/report/figures/style.py"
    path.write_text(path.read_text() + "\nADDED = 1\n")
    assert changed(clone) == {"report"}


def test_a_new_method_changes_the_digests_of_what_selects_alone(clone: Path) -> None:
    (clone / "interlace/methods/last.py").write_text("def last() -> None: ...\n")
    registry = clone / "interlace/methods/registry.py"
    registry.write_text(registry.read_text() + "\nfrom interlace.methods.last import last\n")
    assert changed(clone) == {"budget", "rounds", "candidates", "select"}


def test_published_numbers_count_with_the_module_that_reads_them(clone: Path) -> None:
    edit(clone / "interlace/report/facts/published.csv", "0.98", "0.99")
    assert changed(clone) == {"report"}


def test_a_file_beside_the_modules_of_a_package_counts_with_it(clone: Path) -> None:
    edit(clone / "interlace/report/templates/card.md", "#", "##")
    assert changed(clone) == reaching("interlace/report/__init__.py")


def output_of(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


CLOSURE = """
import sys
from stages.digests import ROOT, code_of
from stages.{stage} import main
ours = {{sys.modules[name] for name in sys.modules if name.startswith(("interlace", "stages"))}}
print({{module.__file__ for module in ours}} - {{str(path) for path in code_of("{stage}")}})
"""


@pytest.mark.parametrize("stage", ["select", "sample"])
def test_what_python_imports_is_reached(stage: str) -> None:
    code = CLOSURE.format(stage=stage)
    assert output_of(code) == "set()\n"


def test_imports_inside_functions_count_and_those_of_type_checkers_do_not() -> None:
    assert ROOT / "interlace/rounds.py" in code_of("rounds")
    assert ROOT / "interlace/evaluation/run/adapter.py" in code_of("evaluate")
    assert not any("registry" in path.name for path in code_of("collect"))


def test_modules_are_digested_without_being_imported() -> None:
    code = "import sys; from stages import digests; digests.code_digests(); print(*sys.modules)"
    assert "interlace" not in output_of(code).split()
