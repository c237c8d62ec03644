"""What each stage in dvc.yaml depends on: its code, its parameters, and files of other stages."""

from __future__ import annotations

import importlib
import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from interlace.errors import MissingInputError
from interlace.params.whole import Params
from interlace.system.documents import read_yaml
from stages.command import way_out

ROOT = Path(__file__).parents[2]
PIPELINE = read_yaml(ROOT / "dvc.yaml")["stages"]
del PIPELINE["wait"]  # depends on nothing, and is no stage of ours
STAGES = sorted(PIPELINE.keys() - {"pin"})  # `pin` always runs
PINNED = ("artifacts/code.json", "artifacts/params.json", "artifacts/sources.json")


def entries(stage: str, kind: str) -> list[Any]:
    """What dvc.yaml lists for a stage under `deps`, `params`, `outs`, `metrics` or `plots`."""
    listed: list[Any] = PIPELINE[stage].get("do", PIPELINE[stage]).get(kind, [])
    return listed


def paths(stage: str, *kinds: str) -> set[str]:
    names = [
        entry if isinstance(entry, str) else next(iter(entry))
        for kind in kinds
        for entry in entries(stage, kind)
    ]
    keys = PIPELINE[stage].get("foreach", {"": ""})
    return {
        name.replace("${key}", key).replace("${item}", item)
        for name in names
        for key, item in keys.items()
    }


def keys(stage: str, file: str) -> list[str]:
    """The keys of a file that `pin` writes on which a stage depends."""
    listed = [entry for entry in entries(stage, "params") if isinstance(entry, dict)]
    return [key for entry in listed for key in entry.get(file, [])]


def module(stage: str) -> Any:
    return importlib.import_module(f"stages.{stage}")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_its_own_code_and_lists_no_file_of_it(stage: str) -> None:
    assert keys(stage, "artifacts/code.json") == [stage]
    assert not [path for path in paths(stage, "deps") if path.endswith(".py")]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_parameters_it_reads(stage: str) -> None:
    own = {entry for entry in entries(stage, "params") if isinstance(entry, str)}  # params.yaml's
    sections = own | set(keys(stage, "artifacts/params.json")) - {"loss_criterion", "row_bounds"}
    if "artifacts/params.json" in paths(stage, "deps"):
        sections = set(Params.model_fields)
    assert sections == set(module(stage).main.params_model.model_fields)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_sources_it_reads(stage: str) -> None:
    code = Path(module(stage).__file__).read_text()
    read = {f"pinned_{kind}" for kind in re.findall(r"\bpinned\(\)\.(\w+)", code)}
    listed = set(keys(stage, "artifacts/sources.json"))
    if "artifacts/dense.json" in paths(stage, "deps"):  # the dense model's record alone
        listed.add("pinned_model")
    assert read <= listed


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_lists_nothing_twice(stage: str) -> None:
    for kind in ("deps", "params", "outs", "metrics", "plots"):
        listed = [str(entry) for entry in entries(stage, kind)]
        assert len(listed) == len(set(listed)), kind


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_missing_input_is_traced_to_the_stage_that_writes_it(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", stage)
    outs = paths(stage, "outs", "metrics", "plots")
    for path in outs - {"artifacts/dense.json"}:
        assert way_out(MissingInputError(Path(path))) == f"; run `dvc repro {stage}`"
    monkeypatch.delenv("DVC_STAGE")
    for path in outs - {"artifacts/dense.json"}:
        assert f"; run `python -m stages.{stage}" in way_out(MissingInputError(Path(path)))


def test_the_page_of_the_pipeline_runs_all_stages_by_hand_in_their_order() -> None:
    page = (ROOT / "docs/pipeline.md").read_text()
    loop = re.search(r"for stage in (.*?); do", page, re.DOTALL)
    assert loop
    words = shlex.split(loop[1].replace("\\\n", ""))
    assert [word.split()[0] for word in words] == list(
        itertools.chain(*([stage] * len(PIPELINE[stage].get("foreach", "1")) for stage in PIPELINE))
    )


def test_the_page_of_the_pipeline_says_what_each_stage_writes() -> None:
    rows = re.findall(r"^\| (`[^|]*`) \|", (ROOT / "docs/pipeline.md").read_text(), re.MULTILINE)
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == ["wait", *PIPELINE]


# Paths as the stages' own code and the report write them: "data/train", artifacts / "plan.json".
LITERAL = re.compile(r'"((?:artifacts|data|metrics)/[\w./-]+)"')
JOINED = re.compile(r'\b(artifacts|data|metrics) / "([\w./-]+)"')


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_lists_the_paths_in_its_code(stage: str) -> None:
    read = set(LITERAL.findall(Path(module(stage).__file__).read_text()))
    if stage == "report":
        code = (ROOT / "interlace/report/write.py").read_text()
        read |= {"/".join(parts) for parts in JOINED.findall(code)}
    listed = paths(stage, "deps", "params", "outs", "metrics", "plots")
    assert not {path for path in read if not any(_overlap(path, name) for name in listed)}


def _overlap(path: str, name: str) -> bool:
    """Two paths are the same, or one lies in the other."""
    return f"{path}/".startswith(f"{name}/") or f"{name}/".startswith(f"{path}/")


def test_what_a_stage_depends_on_is_written_by_another_or_comes_with_the_repository() -> None:
    outs = {path for stage in PIPELINE for path in paths(stage, "outs", "metrics", "plots")}
    for stage in PIPELINE:
        for path in paths(stage, "deps", "params") - {"ratio", "method"}:
            assert any(out == path or out.startswith(f"{path}/") for out in outs), (stage, path)
