"""Imports point one way: stages use the library, and in it later nouns use earlier ones."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "interlace"
ORDER = (  # a folder or module imports only earlier ones
    *("printable", "errors", "system", "params"),
    *("model", "checkpoint", "sources", "samples", "data"),
    *("scores", "plan", "methods", "selection"),  # arithmetic on a table, without torch
    *("measurements", "pruning", "training", "healing", "evaluation", "speed"),
    *("budget", "rounds", "report", "project", "cli", "__main__"),
)
TORCHLESS = ("scores", "plan", "methods", "selection")


def imports(file: Path) -> Iterator[str]:
    """The modules that a file imports, at its top or later."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = [file.parent.name] if node.level else []  # of stages, a package without others
            module = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


OURS = ("interlace", "stages", "benchmarks", "studies")
FILES = {module_name(file): file for top in OURS for file in (ROOT / top).rglob("*.py")}
IMPORTS = {
    module: {
        name if name in FILES else name.rpartition(".")[0]
        for name in imports(file)
        if name.partition(".")[0] in OURS
    }
    for module, file in FILES.items()
}
LIBRARY_IMPORTS = {
    module: others for module, others in IMPORTS.items() if module.startswith("interlace.")
}


def test_no_file_imports_itself_in_a_circle() -> None:
    TopologicalSorter(IMPORTS).prepare()


def test_each_folder_imports_only_earlier_ones() -> None:
    place = {f"interlace.{name}": number for number, name in enumerate(ORDER)}

    def noun(module: str) -> str:
        return ".".join(module.split(".")[:2])

    wrong = [
        f"{module} imports {other}"
        for module, others in LIBRARY_IMPORTS.items()
        for other in others - {"interlace"}
        if noun(module) != noun(other) and place[noun(module)] < place[noun(other)]
    ]
    assert not wrong


def test_the_library_imports_neither_stages_nor_tests_nor_benchmarks() -> None:
    outer = {"stages", "tests", "benchmarks", "studies", "data"}
    for file in LIBRARY.rglob("*.py"):
        assert not {name.split(".")[0] for name in imports(file)} & outer, file


def test_stages_import_one_another_under_any_name_of_their_package() -> None:
    for file in (ROOT / "stages").glob("*.py"):
        names = [node for node in ast.walk(ast.parse(file.read_text())) if hasattr(node, "module")]
        assert not [node for node in names if not node.level and "stages" in str(node.module)], file


def test_the_library_fits_the_layout() -> None:
    folders = {path.parent for path in LIBRARY.glob("*/*.py") if not path.parent.is_symlink()}
    modules = [path for path in LIBRARY.glob("*.py") if path.name != "__init__.py"]
    assert {path.name for path in folders} | {path.stem for path in modules} == {*ORDER}
    assert len(folders) <= 19 and len(modules) <= 6


def test_packages_import_nothing_by_themselves() -> None:
    packages = {path for path in LIBRARY.rglob("__init__.py") if path.parent != LIBRARY}
    assert not [path for path in packages if list(imports(path))]


@pytest.mark.parametrize(
    "code",
    [
        "import " + ", ".join(name for name in FILES if name.split(".")[1:2] == [folder])
        for folder in TORCHLESS
    ]
    + ["import interlace; interlace.select"],
    ids=[*TORCHLESS, "select"],
)
def test_choosing_layers_imports_no_torch(code: str) -> None:
    code = f"import sys; {code}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
