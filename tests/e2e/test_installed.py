"""The wheel, installed by plain pip in a fresh environment, and a project outside of the clone.

The libraries that Interlace depends on come from the environment of the tests, by a .pth file: it
would take minutes and a network to install them anew. So this proves what the wheel holds and that
a project needs no file of the clone, which a hook refuses to open. It does not prove that the
dependencies in pyproject.toml are complete.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from e2e.project import SMALL

from interlace.system.documents import as_yaml, read_yaml
from stages.digests import code_digests

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
SOURCES = (
    *("interlace", "stages", "profiles", "dvc.yaml", "params.yaml", "pyproject.toml"),
    *("MANIFEST.in", "README.md", "LICENSE", "data/probes.yaml", "data/published.csv"),
    *("data/demo/model", "data/demo/train.parquet", "data/demo/test.parquet", ".dvc/plots.html"),
)
GUARD = """
import sys

def refuse(event, arguments):
    path = arguments[0] if event == "open" else None
    if isinstance(path, str) and path.startswith({clone!r}) and not path.startswith({libraries!r}):
        raise RuntimeError(f"{{path}}: opened, a file of the clone")

sys.addaudithook(refuse)
"""


def run(*command: object, folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as `python -m build` does: from a source distribution."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source, target = ROOT / name, folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target, symlinks=True, ignore=ignore)
        else:
            shutil.copyfile(source, target)
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    run(sys.executable, "-c", code, folder=folder / "source")
    (sdist,) = folder.glob("*.tar.gz")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder)
    run(sys.executable, "-m", "pip", "wheel", *options, sdist, folder=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder, folder=folder)
    options = ("install", "--quiet", "--no-deps", "--no-index")
    run(folder / "bin/python", "-m", "pip", *options, wheel, folder=folder)
    libraries = sysconfig.get_path("purelib")
    (packages,) = folder.glob("lib/python3*/site-packages")
    guard = GUARD.format(clone=f"{ROOT}{os.sep}", libraries=sys.prefix)
    (packages / "clone_guard.py").write_text(guard)
    (packages / "libraries.pth").write_text(f"{libraries}\nimport clone_guard\n")
    return folder / "bin"


def test_the_wheel_holds_one_package_and_no_link(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.partition("/")[0] for name in archive.namelist()}
        assert {name.partition("-")[0] for name in names} == {"interlace", "interlace_vlm"}
        for name in ("project/files/pipeline.yaml", "report/facts/published.csv"):
            assert archive.getinfo(f"interlace/{name}").file_size > 5_000
        assert {f"interlace/stages/{path.name}" for path in (ROOT / "stages").glob("*.py")} == {
            name for name in archive.namelist() if name.startswith("interlace/stages/")
        }


def test_a_project_runs_outside_of_the_clone(programs: Path, tmp_path: Path) -> None:
    path = f"{programs}{os.pathsep}{os.defpath}"
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1", "HOME": str(tmp_path)}
    environment.pop("PYTHONPATH", None)
    project = tmp_path / "project"
    models.tiny_qwen3_vl(project / "source/model", layers=10)
    rows = [models.row(i, images=i // 2 % 2, source=f"source_{i % 2}") for i in range(40)]
    pq.write_table(pa.Table.from_pylist(rows), project / "source/train.parquet")
    pq.write_table(pa.Table.from_pylist(rows[:4]), project / "source/test.parquet")

    def type_in(*command: str) -> str:
        return run(*command, folder=project, environment=environment)

    type_in("interlace", "init", ".", "--model", "source/model", "--data", "source/train.parquet")
    params = read_yaml(project / "params.yaml")
    assert params["model"] == SMALL["model"] and params["data"] == SMALL["data"]
    (project / "params.yaml").write_text(as_yaml(params | SMALL))
    type_in("python", "-m", "dvc", "repro")
    summary = json.loads((project / "metrics/summary.json").read_text())
    assert (summary["layers_before"], summary["layers_after"]) == (10, 8)
    assert json.loads((project / "artifacts/code.json").read_text()) == code_digests()
    assert "10 layers, 8 kept" in type_in("interlace", "show")
    assert "up to date" in type_in("interlace", "upgrade")
    assert type_in("python", "-m", "dvc", "repro").count("Running stage") == 2  # `wait`, `pin`
    module = type_in("python", "-c", "import interlace; print(interlace.__file__)")
    assert module.startswith(str(programs.parent))
