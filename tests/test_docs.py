"""The documents name what there is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from interlace.methods.registry import METHODS
from interlace.params.section import Section
from interlace.params.whole import Params
from interlace.system.documents import read_yaml

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "data").glob("*/README.md"),
]
CURRENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]  # it names what is gone, too


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_paragraph(method: str) -> None:
    text = (ROOT / "docs/methods.md").read_text()
    assert len(re.findall(rf"^\*\*`{method}`\*\*", text, re.MULTILINE)) == 1


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target


def parameters(model: type[Section], prefix: str = "") -> Iterator[str]:
    """All parameters as a user writes them, and the sections that hold them."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from parameters(kind, f"{prefix}{name}.")


PARAMETERS = {*parameters(Params)}
SECTIONS = "|".join(name for name in Params.model_fields if f"{name}." in " ".join(PARAMETERS))


@pytest.mark.parametrize("document", CURRENT, ids=lambda path: path.name)
def test_documents_name_parameters_that_exist(document: Path) -> None:
    pattern = rf"`(?:{SECTIONS})\.[a-z_.]+|(?<=-S )'?\+*(?!name=)[a-z_.]+(?==)"
    names = {name.strip("`'+") for name in re.findall(pattern, document.read_text())}
    files = {name for name in names if name.endswith((".json", ".parquet", ".csv"))}
    assert not names - files - PARAMETERS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_set_what_params_yaml_names_without_plus_signs(document: Path) -> None:
    lines = read_yaml(ROOT / "params.yaml")
    keys = {
        f"{key}.{name}" for key, value in lines.items() if isinstance(value, dict) for name in value
    }
    for plus, name in re.findall(r"-S '?(\+*)((?!name=)[a-z_.]+)=", document.read_text()):
        assert bool(plus) == (name not in keys | lines.keys()), name


def test_messages_name_parameters_that_exist() -> None:
    for path in (ROOT / "interlace").rglob("*.py"):
        names = re.findall(rf"\b((?:{SECTIONS})\.[a-z_]+) = {{", path.read_text())
        assert not {*names} - PARAMETERS, path


def test_contributing_lists_each_module_with_the_first_line_of_its_docstring() -> None:
    lines = re.findall(
        r"^ {4,}(\w+\.py) +(.+)$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE
    )
    files = [*(ROOT / "stages").glob("*.py"), *(ROOT / "interlace").rglob("*.py")]
    modules = [file for file in files if file.name != "__init__.py"]
    documented = [
        (file.name, (ast.get_docstring(ast.parse(file.read_text())) or "").splitlines()[0])
        for file in modules
    ]
    assert sorted(lines) == sorted((name, line.rstrip(".")) for name, line in documented)
