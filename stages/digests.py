"""Digests of the code behind each stage, so that a stage reruns when its own code changes.

A stage's code is its entrypoint and all modules of this project that the entrypoint reaches by
import. Modules are parsed, never imported. The stages are the package `stages` in a clone and
`interlace.stages` where the wheel is installed; the same code has the same digests in both.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

_ABOVE = Path(__file__).resolve().parents[1]  # a clone, or the installed package `interlace`
ROOT = _ABOVE.parent if (_ABOVE / "__init__.py").is_file() else _ABOVE
PACKAGES = ("interlace", "stages")
HELP = {"Field": "description", "click": "help"}  # arguments that only a reader sees
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def code_digests(root: Path = ROOT) -> dict[str, Any]:
    """Digest the code of all stages but `pin`, which always runs.

    Returns:
        A digest by stage, and under `modules` the digest of each file that one of them reaches.
    """
    files = {stage: code_of(stage, root) for stage in stage_names(root) if stage != "pin"}
    modules = {_name(path, root): _digest(path) for path in set().union(*files.values())}
    modules = {name: modules[name] for name in sorted(modules)}
    return {stage: _combined(paths, root) for stage, paths in files.items()} | {"modules": modules}


def code_digest(stage: str, root: Path = ROOT) -> str:
    """Digest the code of one stage."""
    return _combined(code_of(stage, root), root)


def stage_names(root: Path = ROOT) -> list[str]:
    """Return the names of all stages, those of the modules in stages/ that can be run."""
    paths = _path("stages", root).glob("*.py")
    return sorted(path.stem for path in paths if re.search("(?m)^if __name__", _text(path)))


def code_of(stage: str, root: Path = ROOT) -> set[Path]:
    """Return the files that a stage's entrypoint reaches by import, itself included.

    Imports inside functions count; those under `if TYPE_CHECKING:` do not. A package counts with
    its `__init__` and with its files that are no modules, such as templates.
    """
    reached: set[Path] = set()
    modules = {f"stages.{stage}"}
    while modules:
        paths = {path for module in modules for path in _files(module, root)} - reached
        reached |= paths
        modules = {module for path in paths for module in _imports(path, root)}
    return reached


@cache
def _digest(path: Path) -> str:
    """Digest a file; of a module what it does, without comments, docstrings and help."""
    content = path.read_bytes()
    if path.suffix == ".py":
        content = repr(_meaning(_tree(path))).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _combined(paths: set[Path], root: Path) -> str:
    lines = sorted(f"{_name(path, root)} {_digest(path)}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def _meaning(node: Any) -> Any:
    """Turn a syntax tree into nested lists, the same ones in all versions of Python."""
    if isinstance(node, list):
        return [_meaning(child) for child in node]
    if not isinstance(node, ast.AST):
        return node
    fields = dict(ast.iter_fields(node))
    if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    elif isinstance(node, ast.Call) and (help_argument := _help_argument(node.func)):
        fields["keywords"] = [word for word in node.keywords if word.arg != help_argument]
    values = [
        (name, _meaning(value))
        for name, value in fields.items()
        if value is not None and value != [] and name not in ("ctx", "kind")
    ]
    return [type(node).__name__, *values]


def _help_argument(function: ast.expr) -> str | None:
    """Name the argument of a call that only a reader sees: of `Field`, `click.option`, ..."""
    if isinstance(function, ast.Attribute):
        function = function.value
    return HELP.get(function.id) if isinstance(function, ast.Name) else None


@cache
def _files(module: str, root: Path) -> tuple[Path, ...]:
    """Return the files read when a module is imported: its own and those of its packages."""
    package, _, _ = module.rpartition(".")
    if module.partition(".")[0] not in PACKAGES:
        return ()
    paths = [*_files(package, root)] if package else []
    path = _path(module, root)
    if path.with_suffix(".py").is_file():
        paths += sorted(path.parent.glob(f"{path.name}.*"))  # published.csv goes with published.py
    elif (path / "__init__.py").is_file():
        paths += [path / "__init__.py", *_data_in(path)]
    return tuple(paths)


def _data_in(folder: Path) -> Iterator[Path]:
    """Yield the files of a package that go with no module, without those of its subpackages."""
    for path in folder.iterdir():
        if path.is_dir() and path.name != "__pycache__" and not (path / "__init__.py").exists():
            yield from _data_in(path)
        elif path.is_file() and path.name != "README.md" and not path.with_suffix(".py").exists():
            yield path


@cache
def _imports(path: Path, root: Path) -> frozenset[str]:
    """Return the names that a file imports: modules, and what may be one inside a package."""
    if path.suffix != ".py":
        return frozenset()
    names: set[str] = set()
    for node in _nodes_at_run_time(_tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = _name(path, root).split("/")[: -node.level] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def _nodes_at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes but those that only a type checker reads."""
    yield node
    children = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        children = iter(node.orelse)
    for child in children:
        yield from _nodes_at_run_time(child)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(_text(path))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _path(module: str, root: Path) -> Path:
    """Return the folder of a package, or the file of a module without its suffix."""
    if module.partition(".")[0] == "stages" and not (root / "stages/digests.py").is_file():
        root = root / "interlace"
    return root.joinpath(*module.split("."))


def _name(path: Path, root: Path) -> str:
    """Name a file by its module: the same in a clone and where it is installed."""
    name = path.relative_to(root).as_posix()
    return name.removeprefix("interlace/") if name.startswith("interlace/stages/") else name
