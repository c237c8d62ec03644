from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from report.report_cases import (
    DATASHEET,
    RULE,
    SIZE_ROWS,
    evaluations,
    full_scores,
    illustration,
    in_rounds,
    plan,
    score_table,
    small_plan,
)

from interlace.errors import InputError
from interlace.report.facts.scale import nines
from interlace.report.figures.calibration import calibration_size_figure
from interlace.report.figures.datasheet import datasheet_figure
from interlace.report.figures.layer_map import label_levels, layer_map_figure
from interlace.report.figures.pipeline import pipeline_figure
from interlace.report.figures.probes import probe_heatmap
from interlace.report.figures.profile import profile_figure
from interlace.report.figures.removals import removal_map
from interlace.report.figures.similarity import similarity_figure
from interlace.report.figures.training import loss_figure, retention_figure
from interlace.scores.probes import PROBE_SCHEMA
from interlace.selection.removals import removals
from interlace.selection.select import select


@pytest.fixture
def curve(tmp_path: Path) -> Path:
    lines = ["step,loss,learning_rate,grad_norm", "1,2.5,1e-6,", "2,2.0,1e-5,1.5", "3,,5e-6,1.1"]
    (tmp_path / "curve.csv").write_text("\n".join(lines))
    return tmp_path / "curve.csv"


PROBES = [
    {"task": task, "domain": domain, "layer": layer, "similarity": 0.9 + layer / 100}
    for domain, task in (("math", "solve"), ("nonmath", "caption"))
    for layer in range(4)
]
TABLE = score_table(illustration(), standard_error=0.01)
DRAW: dict[str, Callable[[Path, Path], None]] = {
    "profile": lambda path, _: profile_figure(TABLE, path),
    "map": lambda path, _: layer_map_figure(plan(), RULE, path),
    "map of a run": lambda path, _: layer_map_figure(plan("consecutive"), RULE, path),
    "map of chance": lambda path, _: layer_map_figure(plan("random"), RULE, path),
    "map of nine": lambda path, _: layer_map_figure(small_plan(), RULE, path),
    "map of a ranking": lambda path, _: layer_map_figure(plan("shortgpt"), RULE, path),
    "map of rounds": lambda path, _: layer_map_figure(in_rounds(), RULE, path),
    "map of nothing": lambda path, _: layer_map_figure(plan("dense-ft"), RULE, path),
    "retention": lambda path, _: retention_figure(evaluations(), path),
    "sizes": lambda path, _: calibration_size_figure(SIZE_ROWS, path),
    "probes": lambda path, _: probe_heatmap(pa.Table.from_pylist(PROBES, PROBE_SCHEMA), path),
    "removals": lambda path, _: removal_map(removals(full_scores(), (0.25,)), path),
    "similarity": lambda path, _: similarity_figure({"one": TABLE}, path),
    "datasheet": lambda path, _: datasheet_figure(DATASHEET, path),
    "loss": lambda path, curve: loss_figure(curve, path),
    "pipeline": lambda path, _: pipeline_figure(path, illustration(), plan()),
}


@pytest.mark.parametrize("kind", ["png", "svg"])
@pytest.mark.parametrize("name", list(DRAW))
def test_the_same_figure_is_the_same_bytes(
    name: str, kind: str, tmp_path: Path, curve: Path
) -> None:
    for copy in ("one", "two"):
        DRAW[name](tmp_path / f"{copy}.{kind}", curve)
    one, two = ((tmp_path / f"{copy}.{kind}").read_bytes() for copy in ("one", "two"))
    assert one == two
    assert len(one) > 4000
    if kind == "png":
        pixels = np.asarray(Image.open(tmp_path / "one.png").convert("L"))
        assert pixels.std() > 10  # something is drawn
        assert Image.open(tmp_path / "one.png").info.keys() <= {"dpi"}


def test_a_score_file_is_drawn_like_its_table(tmp_path: Path) -> None:
    table = score_table(illustration())
    pq.write_table(table, tmp_path / "scores.parquet")
    profile_figure(tmp_path / "scores.parquet", tmp_path / "file.png")
    profile_figure(table, tmp_path / "table.png")
    assert (tmp_path / "file.png").read_bytes() == (tmp_path / "table.png").read_bytes()


def test_standard_errors_are_drawn_as_bands(tmp_path: Path) -> None:
    for name, error in (("without.png", None), ("with.png", 0.01)):
        profile_figure(score_table(illustration(), standard_error=error), tmp_path / name)
    assert (tmp_path / "without.png").read_bytes() != (tmp_path / "with.png").read_bytes()


@pytest.mark.parametrize("method", ["dense-ft", "manual", "random", "angular-block"])
def test_what_happens_can_be_drawn_of_any_plan(method: str, tmp_path: Path) -> None:
    drop = {"drop": [3]} if method == "manual" else {}
    plan = select(full_scores(), method=method, **drop)
    pipeline_figure(tmp_path / "a.svg", full_scores(), plan)
    layer_map_figure(plan, RULE, tmp_path / "a.png")
    assert (tmp_path / "a.svg").exists()


def test_labels_of_neighbouring_groups_are_never_on_top_of_each_other() -> None:
    deep = select(full_scores(64), method="interlace-tn", ratio=0.3)
    levels = label_levels(deep, letter=0.3)
    assert min(levels) == 0
    for level in set(levels):
        alike = [g.first for g, own in zip(deep.groups, levels, strict=True) if own == level]
        gaps = [b - a for a, b in pairwise(sorted(alike))]
        assert all(gap >= 0.3 * len("S_1 = 0.9988") for gap in gaps)
    assert max(levels) > 0


def test_nothing_is_left_behind_by_a_figure_that_fails(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="criterion"):
        profile_figure(
            score_table(illustration(), criterion="cosine/math"), tmp_path / "profile.png"
        )
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_named(tmp_path: Path, curve: Path) -> None:
    with pytest.raises(InputError, match=r"png, svg, pdf"):
        pipeline_figure(tmp_path / "figure.gif", illustration(), plan())
    curve.write_text("step,loss\n1,2\n")
    with pytest.raises(InputError, match="learning_rate"):
        loss_figure(curve, tmp_path / "loss.png")
    results = evaluations()
    results["tuned"].scores.clear()
    with pytest.raises(InputError, match="no benchmark"):
        retention_figure(results, tmp_path / "retention.png")


def test_nines_count_the_nines_and_end() -> None:
    values = nines(np.array([0.0, 0.9, 0.99, 1.0, 1.0000001]))
    assert values == pytest.approx([0, 1, 2, 6, 6])


def test_a_run_without_end_to_end_training_has_a_figure_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "loss.csv").write_text("step,loss,learning_rate,grad_norm\n")
    loss_figure(tmp_path / "loss.csv", tmp_path / "loss.svg")
    assert (tmp_path / "loss.svg").stat().st_size > 500
