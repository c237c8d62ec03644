"""English texts of an installation: Python's manual, docstrings, readmes and licences."""

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from pydoc_data.topics import topics

PYTHON = "python"  # the package whose manual `pydoc` has
SKIPPED = {"test", "tests", "models"}  # folders: thousands of files with the same few texts
QUOTED = re.compile(r"(\"\"\"|''')(.*?)\1", re.S)
LEAST_QUOTED = 1500  # characters between triple quotes; files with fewer are not parsed
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Text:
    """One text as it was found.

    Attributes:
        kind: manuals, docstrings or readmes.
        package: it belongs to.
        content: as written, with code, lists and markup.
    """

    kind: str
    package: str
    content: str


def manuals() -> list[Text]:
    """Return the topics of Python's manual."""
    return [Text("manuals", PYTHON, topics[name]) for name in sorted(topics)]


def docstrings(source: str) -> str:
    """Return the docstrings of a module in their order, without running it; empty if it has few."""
    if sum(len(match[2]) for match in QUOTED.finditer(source)) < LEAST_QUOTED:
        return ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            nodes = list(ast.walk(ast.parse(source)))
        except (SyntaxError, ValueError):
            return ""
    documented = [node for node in nodes if isinstance(node, DOCUMENTED)]
    documented.sort(key=lambda node: getattr(node, "lineno", 0))
    return "\n\n".join(filter(None, map(ast.get_docstring, documented)))


def is_readme(path: Path) -> bool:
    """Tell if a file is a text for people: a readme, a licence, a page of documentation."""
    if path.suffix.lower() in (".md", ".rst", ".txt"):
        return True
    return bool(re.match(r"(?i)licen[cs]e|notice|copying|authors|readme", path.name))


def package_texts(package: str) -> Iterator[Text]:
    """Yield the texts of an installed package."""
    distribution = metadata.distribution(package)
    yield Text("readmes", package, str(distribution.metadata.get_payload() or ""))
    for path in sorted(distribution.files or (), key=str):
        if SKIPPED.intersection(path.parts):
            continue
        is_module = path.suffix == ".py"
        if is_module or is_readme(Path(path)):
            try:
                content = Path(str(path.locate())).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            if is_module:
                yield Text("docstrings", package, docstrings(content))
            else:
                yield Text("readmes", package, content)
