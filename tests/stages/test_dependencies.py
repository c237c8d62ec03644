"""Each stage in dvc.yaml depends on exactly the code that it imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
MODULES = {"select": "select_layers"}


def file_of(module: str) -> str | None:
    """The file of one of our modules, relative to the root."""
    path = ROOT / module.replace(".", "/")
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate.relative_to(ROOT).as_posix()
    return None


def imported_by(file: str) -> set[str]:
    """Our files that a file imports, anywhere in it, with the packages they lie in."""
    modules = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    parents = {module.rsplit(".", n)[0] for module in modules for n in range(module.count(".") + 1)}
    return {found for module in modules | parents if (found := file_of(module))}


def closure(stage: str) -> set[str]:
    """Every file of ours that a stage's code can reach."""
    seen: set[str] = set()
    left = {"stages/__init__.py", f"stages/{MODULES.get(stage, stage)}.py"}
    while left:
        file = left.pop()
        seen.add(file)
        left |= imported_by(file) - seen
    return seen


def declared(stage: str) -> set[str]:
    """The code that dvc.yaml names for a stage."""
    body = STAGES[stage].get("do", STAGES[stage])
    return {dep for dep in body["deps"] if dep.endswith(".py")}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_what_it_imports(stage: str) -> None:
    assert declared(stage) == closure(stage)
