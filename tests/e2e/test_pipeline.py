"""The pipeline as a user meets it: through dvc. The tests run in order, on one repository."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from e2e.project import Project
from forked_programs import Server

pytestmark = pytest.mark.e2e

AFTER_SCORE = [
    "budget",
    "rounds",
    "candidates",
    "select",
    "export",
    "finetune",
    "reference_plan",
    "evaluate@pruned",
    "evaluate@tuned",
    "ttft",
    "report",
]


FORCED = ("dvc", "repro", "--force", "--no-run-cache", "export")


def digests(project: Project, *places: str) -> dict[str, str]:
    return {
        path.relative_to(project.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for place in places
        for path in sorted((project.folder / place).rglob("*"))
        if path.is_file()
    }


def test_repro_writes_every_metric_the_contract_names(project: Project) -> None:
    summary = json.loads((project.folder / "metrics/summary.json").read_text())
    promised = {
        *("score_dense", "score_pruned", "score_tuned"),
        *("ttft_speedup", "ttft_ideal", "layers_before", "layers_after"),
        *("parameters_before", "parameters_after"),
    }
    assert promised <= summary.keys()
    assert all(isinstance(value, int | float) for value in summary.values())
    assert (summary["layers_before"], summary["layers_after"]) == (10, 8)


def test_show_prints_the_plan_and_the_summary(project: Project) -> None:
    shown = project.run("python", "-m", "interlace.cli", "show")
    assert "interlace: 25% of 10 layers" in shown and "10 layers, 8 kept" in shown
    assert "parameters" in shown and "first token" in shown


def test_nothing_is_left_unfinished(project: Project) -> None:
    scratch = project.folder / ".scratch"
    unfinished = [path for path in scratch.glob("*/*/*") if path.parts[-3] != "pin"]  # its caches
    assert [*unfinished, *project.folder.rglob("*.partial")] == []


def test_outputs_name_no_place_on_this_machine(project: Project) -> None:
    for place in ("artifacts", "metrics", "data", "dvc.lock"):
        files = [project.folder / place, *(project.folder / place).rglob("*")]
        for path in (file for file in files if file.is_file()):
            assert str(project.folder).encode() not in path.read_bytes(), path


def test_a_second_repro_runs_only_pin(project: Project) -> None:
    assert project.ran(project.run("dvc", "repro")) == ["pin"]


def test_forced_stages_write_the_same_bytes_up_to_export(project: Project) -> None:
    places = ("data/train", "data/calibration", "artifacts/hidden_states", "artifacts/pruned")
    files = ("artifacts/scores.parquet", "artifacts/plan.json", "artifacts/sources.json")
    before = digests(project, *places), [(project.folder / f).read_bytes() for f in files]
    server = Server(hash_seed="1")  # sets have another order than in the first run
    output = project.run(*FORCED, variables=server.variables)
    server.close()
    assert project.ran(output)[-1] == "export"
    assert (digests(project, *places), [(project.folder / f).read_bytes() for f in files]) == before


def test_another_ratio_reruns_select_and_what_follows(project: Project) -> None:
    output = project.run("dvc", "exp", "run", "--name", "deeper", "-S", "ratio=0.3")
    assert sorted(project.ran(output)) == sorted(["pin", *AFTER_SCORE])
    assert (
        json.loads((project.folder / "artifacts/plan.json").read_text())["shortfall"]["wanted"] == 3
    )
    assert "layers_after" in project.run("dvc", "metrics", "diff")


def test_going_back_restores_from_cache(project: Project) -> None:
    output = project.run("dvc", "exp", "run", "--name", "back", "-S", "ratio=0.25")
    assert project.ran(output) == ["pin"]
    assert (
        json.loads((project.folder / "artifacts/plan.json").read_text())["shortfall"]["wanted"] == 2
    )


def test_a_queue_of_methods_runs(project: Project) -> None:
    project.run("dvc", "exp", "run", "--queue", "-S", "method=mixed,random", "-S", "ratio=0.3")
    project.run("dvc", "exp", "run", "--run-all", "--jobs", "1")
    shown = json.loads(project.run("dvc", "exp", "show", "--json"))
    experiments = [
        experiment["revs"][0]["data"]
        for revision in shown
        for experiment in revision["experiments"] or ()
    ]
    methods = {
        data["params"]["params.yaml"]["data"]["method"]: data["metrics"]["metrics/summary.json"]
        for data in experiments
    }
    assert {"mixed", "random"} <= methods.keys()
    assert all("layers_after" in str(metrics) for metrics in methods.values())


def plan_of(project: Project, *settings: str) -> dict[str, Any]:
    """What `select` decides under other settings."""
    changes = [part for setting in settings for part in ("-S", setting)]
    project.run("dvc", "exp", "run", *changes, "select")
    plan: dict[str, Any] = json.loads((project.folder / "artifacts/plan.json").read_text())
    return plan


def test_sleb_is_measured_and_serves_smaller_ratios_from_the_cache(project: Project) -> None:
    large = plan_of(project, "method=sleb", "ratio=0.3")
    output = project.run("dvc", "exp", "run", "-S", "ratio=0.1", "select")
    assert "sensitivity" not in project.ran(output)
    small = json.loads((project.folder / "artifacts/plan.json").read_text())
    assert set(small["drop"]) < set(large["drop"])


def test_a_plan_can_be_given_by_hand(project: Project) -> None:
    plan = plan_of(project, "method=manual", "++select.drop=[4,7]", "++select.tune=[5]")
    assert (plan["drop"], plan["tune"]) == ([4, 7], [5])


def test_a_budget_decides_on_the_number_of_layers(project: Project) -> None:
    plan = plan_of(project, "method=shortgpt", "ratio=auto", "++budget.params=0.9")
    assert plan["decision"]["values"][str(len(plan["drop"]))] <= 0.9
    assert plan["decision"]["values"][str(len(plan["drop"]) - 1)] > 0.9


def test_rounds_measure_the_pruned_model(project: Project) -> None:
    plan = plan_of(project, "method=interlace", "ratio=0.2", "++select.rounds=2")
    assert [group["round"] for group in plan["groups"]] == [1, 2]


def test_a_reference_is_trained_once_and_serves_other_methods(project: Project) -> None:
    settings = ["-S", "method=interlace", "-S", "ratio=0.2", "-S", "reference=dense-ft"]
    ran = project.ran(project.run("dvc", "exp", "run", *settings, "-S", "select.rounds=1"))
    assert {"reference", "evaluate@reference"} <= set(ran)
    summary = json.loads((project.folder / "metrics/summary.json").read_text())
    assert "score_dense_ft" in summary
    ran = project.ran(project.run("dvc", "exp", "run", "-S", "method=shortgpt"))
    assert "finetune" in ran and not {"reference", "evaluate@reference"} & set(ran)


def test_local_healing_alone_tunes_the_model(project: Project) -> None:
    settings = ["-S", "heal.local_steps=2", "-S", "finetune.max_steps=0"]
    project.run("dvc", "exp", "run", *settings, "-S", "reference=none")
    curve = (project.folder / "metrics/local_loss.csv").read_text().splitlines()
    assert curve[0].startswith("step,relative_error,learning_rate,layer_")
    summary = json.loads((project.folder / "metrics/summary.json").read_text())
    assert "score_tuned" in summary and "score_dense_ft" not in summary


def test_words_in_the_code_rerun_nothing_and_a_color_reruns_report_alone(project: Project) -> None:
    project.run("dvc", "repro")
    for name in ("stages/collect.py", "interlace/training/loop.py", "interlace/params/healing.py"):
        path = project.folder / name
        path.write_text(path.read_text() + "\n# a comment\n")
    style = project.folder / "interlace/report/figures/style.py"
    style.write_text(style.read_text() + "\nADDED = 1\n")
    fresh = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    assert project.ran(project.run("dvc", "repro", variables=fresh)) == ["pin", "report"]


def test_a_default_that_is_written_out_reruns_nothing(project: Project) -> None:
    output = project.run("dvc", "exp", "run", "-S", "++export.max_shard_mb=4096")
    assert project.ran(output) == ["pin"]


def test_a_mistake_in_params_ends_in_one_line(project: Project) -> None:
    output = project.run("dvc", "exp", "run", "-S", "method=interlase", check=False)
    assert "error: method = 'interlase': no such method; did you mean interlace?" in output
    assert "Traceback" not in output
