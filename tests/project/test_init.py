"""`interlace init`: a project by a profile, whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from dvc.repo import Repo

from interlace.cli import main
from interlace.params.whole import read_params
from interlace.project import start
from interlace.project.layout import pipeline_text, project_files
from interlace.project.profiles import profile_names, project_params, read_profile
from interlace.project.start import EXTRAS
from interlace.system.documents import parse_yaml, read_yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder outside of any repository to type commands in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path


def init(*words: str) -> Result:
    return CliRunner().invoke(main, ["init", *words])


def refusal(*words: str) -> str:
    """The one line that is said of bad input."""
    before = contents(Path())
    result = init(*words)
    assert result.exit_code == 2 and len(result.output.splitlines()) == 1, result.output
    assert contents(Path()) == before
    return result.output


def contents(folder: Path) -> dict[str, bytes | None]:
    paths = sorted(folder.rglob("*"))
    return {str(path): path.read_bytes() if path.is_file() else None for path in paths}


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=True)
    return done.stdout


def test_a_project_is_a_repository_of_git_and_dvc_that_ignores_what_dvc_writes(work: Path) -> None:
    assert init("mine", "--profile", "qwen3-vl-8b").exit_code == 0
    with Repo("mine") as repo:
        assert Path(repo.root_dir) == work / "mine" == Path(repo.scm.root_dir)
        assert {stage.name for stage in repo.index.stages} >= {"pin", "collect", "evaluate@dense"}
        outs = [out.fs_path for stage in repo.index.stages for out in stage.outs if out.use_cache]
    below = [f"{out}/x" for out in outs]  # a path that is not there may be a folder
    ignored = git("-C", "mine", "check-ignore", *outs, *below).splitlines()
    assert len(outs) > 20 and {path.removesuffix("/x") for path in ignored} == {*outs}
    assert read_params(Path("mine/params.yaml")) == read_profile("qwen3-vl-8b").params
    assert len(Path("mine/README.md").read_text().splitlines()) <= 12


def test_the_pipeline_is_the_clones_with_the_installed_stages() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    assert pipeline_text().replace("interlace.stages.", "stages.") == text
    commands = [line for line in pipeline_text().splitlines() if " cmd:" in line]
    assert len(commands) > 15 and all(" interlace." in line for line in commands)


@pytest.mark.parametrize("name", profile_names())
def test_each_profile_makes_a_project_with_its_comments(name: str) -> None:
    profile = read_profile(name)
    ids = ("you/model", "rows.parquet") if profile.comes_without_model else (None, None)
    text = project_params(profile, *ids)
    assert text.count("# ") >= profile.text.count("  # ")
    values = parse_yaml(text, name)
    if not profile.comes_without_model:
        assert values == parse_yaml(profile.text, name)
    assert float(profile.hours.removeprefix("~").split()[0]) > 0


def test_a_model_and_data_of_ones_own_replace_the_profiles(work: Path) -> None:
    (work / "here").mkdir()
    result = init("mine", "--model", "you/model", "--data", "here")
    assert result.exit_code == 0, result.output
    values = read_yaml(Path("mine/params.yaml"))
    assert values["model"] == {"id": "you/model"} and values["data"] == {"id": str(work / "here")}
    text = Path("mine/params.yaml").read_text()
    profile = (ROOT / "profiles/one-gpu.yaml").read_text()
    changed = [line for line in profile.splitlines() if line not in text.splitlines()]
    assert all(line.startswith("  id: ") for line in changed) and len(changed) == 2


@pytest.mark.parametrize("name", [name for name in profile_names() if name != "demo"])
def test_rows_of_ones_own_are_scored_in_place_of_what_the_profile_names(name: str) -> None:
    Path("held: out.parquet").touch()
    options = ("--model", "you/model", "--data", "you/rows", "--heldout", "held: out.parquet")
    assert init("mine", "--profile", name, *options).exit_code == 0
    ours, profile = read_params(Path("mine/params.yaml")), read_profile(name).params
    assert ours.evaluate.heldout == str(Path("held: out.parquet").resolve())
    assert not ours.evaluate.benchmarks
    same = {"heldout": profile.evaluate.heldout, "benchmarks": profile.evaluate.benchmarks}
    assert ours.evaluate.model_copy(update=same) == profile.evaluate
    assert ours.finetune == profile.finetune and ours.ttft == profile.ttft


def test_a_folder_in_the_project_is_named_as_the_project_sees_it(work: Path) -> None:
    (work / "mine/model").mkdir(parents=True)
    assert init("mine", "--model", "mine/model").exit_code == 0
    assert read_yaml(Path("mine/params.yaml"))["model"]["id"] == "model"


def test_the_demo_brings_its_model_and_rows() -> None:
    assert init("mine", "--demo").exit_code == 0
    assert read_yaml(Path("mine/params.yaml")) == read_yaml(ROOT / "params.yaml")
    for name in ("model/model.safetensors", "train.parquet", "test.parquet"):
        copied = Path("mine/data/demo") / name
        assert copied.read_bytes() == (ROOT / "data/demo" / name).read_bytes()
        assert not copied.is_symlink()


def test_a_project_within_a_repository_starts_no_other(work: Path) -> None:
    git("init", "--quiet")
    assert init("inner").exit_code == 0
    assert not Path("inner/.git").exists()
    with Repo("inner") as repo:
        assert (Path(repo.root_dir), Path(repo.scm.root_dir)) == (work / "inner", work)


def test_files_of_a_folder_stay_as_they_are(work: Path) -> None:
    Path("README.md").write_text("mine")
    Path(".gitignore").write_text("/own\n*.partial")
    assert init(".").exit_code == 0
    assert Path("README.md").read_text() == "mine"
    lines = Path(".gitignore").read_text().splitlines()
    assert lines[:2] == ["/own", "*.partial"] and "/artifacts/" in lines
    assert lines.count("*.partial") == 1
    assert not list(work.glob(".interlace*")) and Path("dvc.yaml").is_file()


def test_bad_input_is_named_and_nothing_is_written(work: Path) -> None:
    Path("there").mkdir()
    Path("there/dvc.yaml").touch()
    assert "there/dvc.yaml" in refusal("there") and "interlace upgrade" in refusal("there")
    Path("other/data").mkdir(parents=True)
    Path("other/data/probes.yaml").touch()
    assert "other/data/probes.yaml: is there already" in refusal("other")
    Path("file").touch()
    assert "file: a file" in refusal("file") and "a file" in refusal("file/below")
    assert "did you mean qwen3-vl-8b?" in refusal("new", "--profile", "qwen3-vl-8")
    assert "--list" in refusal("new", "--profile", "random")
    assert "give --model and --data" in refusal("new", "--profile", "smollm2-135m")
    assert "--model = './none'" in refusal("new", "--model", "./none")
    assert "names nothing" in refusal("new", "--model", "")
    assert "--heldout = 'you/rows': no such file" in refusal("new", "--heldout", "you/rows")
    assert "--demo" in refusal("new", "--demo", "--data", "x/y")
    assert "no folder" in refusal()


def test_without_git_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "install git" in refusal("new")


def test_without_the_extras_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "EXTRAS", ("dvc", "no_such_module"))
    assert "no_such_module: not installed" in refusal("new")
    assert "pip install 'interlace-vlm[pipeline]'" in refusal("new")


def test_the_extras_are_those_of_the_package() -> None:
    extras: Any = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [
        name.partition(">")[0].partition("[")[0].replace("-", "_")
        for extra in ("pipeline", "train", "evaluate")
        for name in extras["optional-dependencies"][extra]
    ]
    assert {*EXTRAS} | {"deepspeed"} == {*names} - {"interlace_vlm"}


def test_a_folder_that_git_ignores_is_refused() -> None:
    git("init", "--quiet")
    Path(".gitignore").write_text("/real/\n")
    assert "ignores it" in refusal("real")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize("folder", ["new", "."])
def test_a_folder_that_cannot_be_written_is_named_and_left_as_it_was(
    folder: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copyfile

    def refused(source: Any, target: Any) -> Any:
        if "probes" in str(target):
            raise OSError(number, os.strerror(number), str(target))
        return copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", refused)
    assert os.strerror(number).lower() in refusal(folder).lower()


def test_a_kill_in_the_midst_of_a_known_folder_leaves_no_pipeline(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("own").touch()
    replace, before = os.replace, contents(work)

    def interrupted(source: Any, target: Any) -> None:
        if Path(target).name == "dvc.yaml":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start.start_project(work, project_files("mine", read_profile("one-gpu"), None, None))
    assert contents(work) == before


def test_the_list_says_which_hours_are_a_forecast() -> None:
    shown = init("--list").output
    assert "…" not in shown and "~: a forecast" in shown
    rows = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert {*profile_names()} < rows.keys()
    assert "8       ~2.2 (8 H100s)" in rows["qwen3-vl-8b"] and "0.25" in rows["qwen3-vl-8b"]
