"""The documents name what there is."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from click import Group

from interlace.cli import main
from interlace.methods.registry import METHODS
from interlace.params.section import Section
from interlace.params.whole import Params
from interlace.system.documents import read_yaml
from studies.contents import anchor, contents, headings

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "data").glob("*/README.md"),
]
SCREENS = 90  # lines of a page that needs no list of contents
BARE = {"README.md", "CHANGELOG.md"}  # pages that need none: read in one go, or by date
CURRENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]  # it names what is gone, too


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_paragraph(method: str) -> None:
    text = (ROOT / "docs/methods.md").read_text()
    assert len(re.findall(rf"^\*\*`{method}`\*\*", text, re.MULTILINE)) == 1


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def links(document: Path) -> list[tuple[str, str]]:
    """The targets of a document's links and images that lie in the repository: path and anchor."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", text)
    return [(path, fragment) for path, fragment in targets if path or fragment]


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target, fragment in links(document):
        path = document.parent / target if target else document
        assert path.exists(), target
        if fragment:
            anchors = [anchor(heading) for _, heading in headings(path.read_text())]
            assert anchors.count(fragment) == 1, f"{target}#{fragment}"


@pytest.mark.parametrize("document", CURRENT, ids=named)
def test_documents_type_commands_that_exist(document: Path) -> None:
    typed = r"(?:^ {4}|`)(?:cd \S+ && )?"
    text = document.read_text()
    for name, words in re.findall(rf"{typed}interlace ([a-z-]+)([^`#\n]*)", text, re.MULTILINE):
        assert name in main.commands, name
        command = main.commands[name]
        parts = [command, *command.commands.values()] if isinstance(command, Group) else [command]
        options = {option for part in parts for param in part.params for option in param.opts}
        assert {*re.findall(r"--[a-z-]+", words)} <= {*options, "--help"}, f"{name}{words}"
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(rf"{typed}make (?:[A-Z_]+=\S+ )*([a-z0-9-]+)", text, re.MULTILINE):
        assert target in targets, target


def test_messages_and_profiles_name_pages_that_exist() -> None:
    files = [
        path
        for folder in ("interlace", "stages", "profiles")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".yaml", ".html", ".md")
    ]
    names = {name for path in files for name in re.findall(r"docs/([\w-]+\.\w+)", path.read_text())}
    assert len(names) > 3
    assert not {name for name in names if not (ROOT / "docs" / name).exists()}


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_a_long_page_begins_with_a_list_of_its_contents(document: Path) -> None:
    text = document.read_text()
    sections = sum(level == 2 for level, _ in headings(text))
    is_long = len(text.splitlines()) > SCREENS or sections >= 5
    if is_long and named(document) not in BARE:
        head = text.partition("\n## ")[0]
        assert head.endswith(f":\n\n{contents(text)}\n"), f"it should be:\n{contents(text)}"


def test_the_readme_can_be_read_at_a_sitting() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1_200


def test_the_index_of_pages_lists_all_of_them() -> None:
    listed = {path for path, _ in links(ROOT / "docs/README.md")}
    pages = {path.name for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".ipynb")}
    assert pages - {"README.md"} <= listed


@pytest.mark.parametrize("page", ["README.md", "docs/demo.md"])
def test_the_demos_numbers_are_those_of_its_last_run(page: str) -> None:
    text = " ".join((ROOT / page).read_text().split())
    run = json.loads((ROOT / "metrics/summary.json").read_text())
    scores = [f"{run[f'score_{model}']:.1f}" for model in ("dense", "pruned", "tuned")]
    retained = [f"{run[f'retention_{model}']:.1f}%" for model in ("pruned", "tuned")]
    assert " ".join(["mean", *scores, *retained]) in text
    sizes = [f"{run[f'parameters_{when}'] / 1e6:.2f}M" for when in ("before", "after")]
    assert f"parameters {' → '.join(sizes)}" in text
    speedup, low, high = (run[f"ttft_speedup{end}"] for end in ("", "_low", "_high"))
    times = " → ".join(f"{run[f'ttft_{model}_ms']:.1f}" for model in ("dense", "tuned"))
    ideal = f"ideal {run['ttft_ideal']:.2f}x ({times} ms)"
    assert f"first token {speedup:.2f}x speedup [{low:.2f}, {high:.2f}], {ideal}" in text


def test_the_forecast_in_the_readme_is_the_one_on_its_page() -> None:
    total = re.search(r"^ +total(.+)$", (ROOT / "docs/plan-run.md").read_text(), re.MULTILINE)
    assert total
    memory, disk, hours = (float(cell.rstrip("G")) for cell in total[1].split()[1:])
    cells = f"| {memory:.0f} GiB | {disk:.0f} GB | {hours:.1f} |"
    assert cells in (ROOT / "README.md").read_text()
    assert cells in (ROOT / "docs/qwen3-vl.md").read_text()


def test_the_citation_names_the_version_and_the_licence_of_the_package() -> None:
    citation = read_yaml(ROOT / "CITATION.cff")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    (paper,) = citation["references"]
    readme = (ROOT / "README.md").read_text()
    assert paper["title"] in readme and paper["url"] in readme
    for author in paper["authors"]:
        assert f"{author['family-names']}, {author['given-names']}" in readme


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
