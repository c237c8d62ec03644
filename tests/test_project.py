"""`.ci/project` lays out a pipeline of its own, apart from the checkout's."""

from __future__ import annotations

import subprocess
from pathlib import Path

from dvc.repo import Repo

ROOT = Path(__file__).parents[1]
PROFILE = "profiles/smollm2-135m.yaml"


def test_a_project_has_the_pipeline_and_the_profile_and_keeps_its_lock(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    for _ in range(2):
        subprocess.run(["sh", ".ci/project", folder, PROFILE], cwd=ROOT, check=True)
        assert (folder / "params.yaml").read_text() == (ROOT / PROFILE).read_text()
        pipeline = (folder / "dvc.yaml").read_text()
        assert pipeline.replace("interlace.stages.", "stages.") == (ROOT / "dvc.yaml").read_text()
        assert " stages." not in pipeline
        links = [
            folder / "data/smollm2",
            folder / "data/smolvlm",
            folder / "data/demo/test.parquet",
        ]
        for link in links:  # a project lies in the checkout
            target = str(link.readlink()).removeprefix("../../").removeprefix("../")
            assert target == str(link.relative_to(folder))
        (folder / "params.yaml").write_text("changed: true")
        (folder / "dvc.lock").write_text("schema: '2.0'\n")
    assert (folder / "dvc.lock").read_text() == "schema: '2.0'\n"
    with Repo(str(folder)) as repo:
        assert repo.config["core"]["no_scm"]
        assert Path(repo.root_dir) == folder
        assert Path(repo.cache.local.path).is_relative_to(folder)
