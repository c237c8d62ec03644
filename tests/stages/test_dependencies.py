"""Each stage in dvc.yaml depends on the code that it imports and the parameters that it reads."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest
import yaml

from interlace.params.section import Section
from interlace.params.whole import Params

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


def named(stage: str, what: str) -> list[str]:
    """What dvc.yaml names for a stage under `deps`, `params`, `outs`, `metrics` or `plots`."""
    body = STAGES[stage].get("do", STAGES[stage])
    given = [one if isinstance(one, str) else next(iter(one)) for one in body.get(what, [])]
    return [
        one.replace("${key}", key) for one in given for key in STAGES[stage].get("foreach", "-")
    ]


def declared(stage: str) -> set[str]:
    """The code that dvc.yaml names for a stage."""
    return {dep for dep in named(stage, "deps") if dep.endswith(".py")}


def leaves(model: type[Section], prefix: str = "") -> set[str]:
    """Every parameter of a model, as a user writes it."""
    found = set()
    for name, field in model.model_fields.items():
        kind = field.annotation
        inner = isinstance(kind, type) and issubclass(kind, Section)
        found |= leaves(kind, f"{prefix}{name}.") if inner else {f"{prefix}{name}"}
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_what_it_imports(stage: str) -> None:
    assert declared(stage) == closure(stage)


@pytest.mark.parametrize("stage", sorted(STAGES.keys() - {"report"}))
def test_figures_are_drawn_by_report_alone(stage: str) -> None:
    assert not [file for file in closure(stage) if "report/figures" in file]


def test_a_template_reruns_report_alone() -> None:
    templates = "interlace/report/templates"
    assert [stage for stage in STAGES if templates in named(stage, "deps")] == ["report"]


def test_a_new_method_does_not_rerun_report() -> None:
    assert "interlace/methods/registry.py" not in closure("report")


@pytest.mark.parametrize("stage", sorted(STAGES.keys() - {"pin"}))  # pin reads the whole file
def test_a_stage_declares_exactly_the_parameters_it_reads(stage: str) -> None:
    model = importlib.import_module(f"stages.{MODULES.get(stage, stage)}").main.params_model
    params = named(stage, "params")
    every = leaves(Params)
    read = {leaf for leaf in every for name in params if f"{leaf}.".startswith(f"{name}.")}
    assert read == leaves(model)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_nothing_twice(stage: str) -> None:
    body = STAGES[stage].get("do", STAGES[stage])
    for what in ("deps", "params", "outs", "metrics", "plots"):
        given = [str(one) for one in body.get(what, [])]
        assert len(given) == len(set(given)), what


# Paths as the stages' own code and the report write them: "data/train", artifacts / "plan.json".
LITERAL = re.compile(r'"((?:artifacts|data|metrics)/[\w./-]+)"')
JOINED = re.compile(r'\b(artifacts|data|metrics) / "([\w./-]+)"')


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_the_paths_in_its_code(stage: str) -> None:
    text = (ROOT / f"stages/{MODULES.get(stage, stage)}.py").read_text()
    found = set(LITERAL.findall(text))
    if stage == "report":
        written = (ROOT / "interlace/report/write.py").read_text()
        found |= {"/".join(parts) for parts in JOINED.findall(written)}
    kinds = ("deps", "params", "outs", "metrics", "plots")
    known = {name for what in kinds for name in named(stage, what)}
    assert not {path for path in found if not any(_touch(path, name) for name in known)}


def _touch(path: str, name: str) -> bool:
    """Whether two paths are the same, or one lies in the other."""
    return f"{path}/".startswith(f"{name}/") or f"{name}/".startswith(f"{path}/")


def test_what_a_stage_depends_on_is_made_by_another_or_comes_with_the_repository() -> None:
    made = {out for stage in STAGES for what in ("outs", "metrics", "plots")
            for out in named(stage, what)}  # fmt: skip
    tracked = (
        "data/published.csv",
        "interlace/report/templates",
        "${",
    )  # ${...}: parameters, and the folders of `evaluate`
    for stage in STAGES:
        others = [d for d in named(stage, "deps") if not d.endswith(".py")]
        assert not [d for d in others if d not in made and not d.startswith(tracked)], stage
