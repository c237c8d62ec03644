"""A report by hand refuses results beside the plan or the weights of another run."""

from __future__ import annotations

from pathlib import Path

import pytest

from interlace.errors import InputError
from interlace.report.facts.inputs import Workspace, check_same_run
from interlace.system.outputs import write_json
from interlace.system.resumable import content_digest


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """The files of one run, each with the digest of what it was made of."""
    workspace = Workspace(tmp_path / "artifacts", tmp_path / "metrics", tmp_path / "data")
    write_json(workspace.at("artifacts/plan.json"), {"drop": [3]})
    plan = content_digest(workspace.at("artifacts/plan.json"))
    write_json(workspace.at("artifacts/export.json"), {"plan": plan})
    for model in ("pruned", "tuned"):
        write_json(workspace.at(f"artifacts/{model}/config.json"), {"model": model})
        weights = content_digest(workspace.at(f"artifacts/{model}"))
        write_json(workspace.at(f"artifacts/evaluation/{model}.json"), {"weights": weights})
    write_json(workspace.at("metrics/ttft.json"), {"weights": weights})
    return workspace


def test_files_of_one_run_pass(workspace: Workspace) -> None:
    check_same_run(workspace)


@pytest.mark.parametrize(
    ("changed", "stage"),
    [
        ("artifacts/plan.json", "export"),
        ("artifacts/pruned/config.json", "evaluate --model pruned"),
        ("artifacts/tuned/config.json", "evaluate --model tuned"),
    ],
)
def test_a_change_names_the_stage_to_run_again(
    workspace: Workspace, changed: str, stage: str
) -> None:
    write_json(workspace.at(changed), {})
    with pytest.raises(InputError, match=f"of another run.* run the stage `{stage}` again"):
        check_same_run(workspace)


def test_times_of_other_weights_are_refused(workspace: Workspace) -> None:
    write_json(workspace.at("metrics/ttft.json"), {"weights": "0"})
    with pytest.raises(InputError, match=r"ttft\.json: of another run"):
        check_same_run(workspace)
