from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure
from methods import made_up
from PIL import Image
from report.report_cases import (
    DATASHEET,
    SIZE_ROWS,
    change_scores,
    evaluations,
    full_scores,
    illustration,
    in_rounds,
    plan,
    score_table,
    size_row,
    small_plan,
)

from interlace.errors import InputError
from interlace.report.facts.scale import nines
from interlace.report.figures import retention, style, training
from interlace.report.figures.calibration import calibration_size_figure
from interlace.report.figures.datasheet import datasheet_figure
from interlace.report.figures.layer_map import label_levels, layer_map_figure
from interlace.report.figures.pipeline import pipeline_figure
from interlace.report.figures.probes import probe_heatmap
from interlace.report.figures.profile import profile_figure
from interlace.report.figures.removals import removal_map
from interlace.report.figures.retention import retention_figure, score_range
from interlace.report.figures.similarity import similarity_figure
from interlace.report.figures.training import loss_figure, smoothed
from interlace.scores.probes import PROBE_SCHEMA
from interlace.selection.removals import removals
from interlace.selection.select import select


@pytest.fixture
def curve(tmp_path: Path) -> Path:
    lines = ["step,loss,learning_rate,grad_norm", "1,2.5,1e-6,", "2,2.0,1e-5,1.5", "3,,5e-6,1.1"]
    (tmp_path / "curve.csv").write_text("\n".join(lines))
    return tmp_path / "curve.csv"


RISES = {"pruned": (0.005, 0.003), "tuned": (0.002, 0.004)}
PROBES = [
    {"task": task, "domain": domain, "layer": layer, "similarity": 0.9 + layer / 100}
    for domain, task in (("math", "solve"), ("nonmath", "caption"))
    for layer in range(4)
]
TABLE = score_table(illustration(), standard_error=0.01)
DRAW: dict[str, Callable[[Path, Path], None]] = {
    "profile": lambda path, _: profile_figure(TABLE, path),
    "map": lambda path, _: layer_map_figure(plan(), path),
    "map of a run": lambda path, _: layer_map_figure(plan("consecutive"), path),
    "map of chance": lambda path, _: layer_map_figure(plan("random"), path),
    "map of nine": lambda path, _: layer_map_figure(small_plan(), path),
    "map of a ranking": lambda path, _: layer_map_figure(plan("shortgpt"), path),
    "map of rounds": lambda path, _: layer_map_figure(in_rounds(), path),
    "map of nothing": lambda path, _: layer_map_figure(plan("dense-ft"), path),
    "retention": lambda path, _: retention_figure(evaluations(), path),
    "sizes": lambda path, _: calibration_size_figure(SIZE_ROWS, path),
    "no sizes": lambda path, _: calibration_size_figure([], path),
    "one size": lambda path, _: calibration_size_figure(SIZE_ROWS[:1], path),
    "unranked size": lambda path, _: calibration_size_figure([size_row(20, None, None)], path),
    "probes": lambda path, _: probe_heatmap(pa.Table.from_pylist(PROBES, PROBE_SCHEMA), path),
    "removals": lambda path, _: removal_map(removals(full_scores(), (0.25,)), path),
    "similarity": lambda path, _: similarity_figure({"one": TABLE}, path),
    "datasheet": lambda path, _: datasheet_figure(DATASHEET, path),
    "loss": lambda path, curve: loss_figure(curve, path),
    "loss and rises": lambda path, curve: loss_figure(curve, path, RISES),
    "no probes": lambda path, _: probe_heatmap(PROBE_SCHEMA.empty_table(), path),
    "pipeline of nothing": lambda path, _: pipeline_figure(path, illustration(), plan("dense-ft")),
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


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn, to look into."""
    drawn_figures: list[Figure] = []

    @contextmanager
    def recorder(path: Path, *size: float) -> Iterator[Figure]:
        with style.drawn(path, *size) as figure:
            drawn_figures.append(figure)
            yield figure

    for module in (retention, training):
        monkeypatch.setattr(module, "drawn", recorder)
    return drawn_figures


def test_scores_fill_their_axis_with_their_errors(tmp_path: Path, figures: list[Figure]) -> None:
    results = evaluations()
    for result in results.values():
        change_scores(result, score=96.0, standard_error=2.0)
    change_scores(results["pruned"], "AI2D", score=88.0)
    retention_figure(results, tmp_path / "retention.png")
    (axes,) = figures[0].axes
    low, high = axes.get_xlim()
    assert 80 < low < 86 and 98 < high <= 101
    assert [bars.has_xerr for bars in axes.containers] == [True] * 3
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["AI2D", "ChartQA", "mean"]


def test_differences_within_chance_stay_small() -> None:
    low, high = score_range([(90.0, 0.1), (90.2, 0.1)])
    assert high - low == pytest.approx(8.0)
    assert score_range([(0.0, 0.0), (100.0, 0.0)]) == (-1.0, 101.0)


def test_the_first_update_alone_does_not_begin_the_smoothed_loss() -> None:
    step = np.array([1.0, *range(5, 155, 5)])
    loss = np.array([0.02, *np.linspace(0.10, 0.08, 30)])
    smooth = smoothed(step, step, loss)
    assert smooth[0] > 0.09 and smooth[0] > smooth[-1]
    assert smoothed(step, step, np.full(31, 0.5)) == pytest.approx(0.5)
    loss[3] = np.nan
    assert smoothed(step, step, loss) == pytest.approx(smooth, rel=0.02)


def test_a_long_curve_is_smoothed_at_few_points(
    tmp_path: Path, figures: list[Figure]
) -> None:  # every pair of 50,000 points would take 20 GB
    rows = "".join(f"{step},2.0,1e-5,1.0\n" for step in range(1, 2001))
    (tmp_path / "long.csv").write_text(f"step,loss,learning_rate,grad_norm\n{rows}")
    loss_figure(tmp_path / "long.csv", tmp_path / "long.png")
    points, smooth = figures[0].axes[0].get_lines()
    assert (len(points.get_xdata()), len(smooth.get_xdata())) == (2000, training.MOST_POINTS)


def test_the_loss_before_and_after_healing_is_beside_the_curve(
    tmp_path: Path, curve: Path, figures: list[Figure]
) -> None:
    loss_figure(curve, tmp_path / "curve.png")
    loss_figure(curve, tmp_path / "both.png", RISES)
    assert [len(figure.axes) for figure in figures] == [3, 4]
    (panel,) = [axes for axes in figures[1].axes if axes.containers]
    points = [float(bars.lines[0].get_ydata()[0]) for bars in panel.containers]
    assert points == [0.005, 0.002] and all(bars.has_yerr for bars in panel.containers)
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["pruned", "tuned"]


def test_standard_errors_are_drawn_as_bands(tmp_path: Path) -> None:
    for name, error in (("without.png", None), ("with.png", 0.01)):
        profile_figure(score_table(illustration(), standard_error=error), tmp_path / name)
    assert (tmp_path / "without.png").read_bytes() != (tmp_path / "with.png").read_bytes()


def test_layers_around_a_massive_activation_are_marked_and_no_others(tmp_path: Path) -> None:
    sinks = {"none": ([], []), "one": ([11], []), "both": ([11], [23])}
    for name, layers in sinks.items():
        table = score_table(made_up.with_sinks(illustration(), *layers))
        profile_figure(table, tmp_path / f"{name}.png")
    profile_figure(score_table(illustration()), tmp_path / "unmeasured.png")
    images = {path.stem: path.read_bytes() for path in tmp_path.iterdir()}
    assert images["none"] == images["unmeasured"]
    assert len({*images.values()}) == 3


def test_labels_of_neighbouring_groups_are_never_on_top_of_each_other() -> None:
    deep = select(full_scores(64), method="interlace-tn", ratio=0.3)
    levels = label_levels(deep, letter=0.3)
    assert min(levels) == 0
    for level in set(levels):
        alike = [g.first for g, own in zip(deep.groups, levels, strict=True) if own == level]
        gaps = [b - a for a, b in pairwise(sorted(alike))]
        assert all(gap >= 0.3 * len("S_1 = 0.9988") for gap in gaps)
    assert max(levels) > 0


def test_redundant_layers_are_darker(tmp_path: Path) -> None:
    probe_heatmap(pa.Table.from_pylist(PROBES[:4], PROBE_SCHEMA), tmp_path / "map.png")
    grey = np.asarray(Image.open(tmp_path / "map.png").convert("L")).astype(int)
    row = grey[grey.shape[0] // 2, : grey.shape[1] * 3 // 4]  # through the cells, short of the bar
    inside = [int(a) for a, b in pairwise(row[row != 255]) if a == b]
    shades = list(dict.fromkeys(inside))
    assert shades[-4:] == sorted(shades[-4:], reverse=True) and len(shades) >= 4


def test_dropped_layers_are_drawn_in_the_colour_of_dropping(tmp_path: Path) -> None:
    def share(name: str, ratio: float) -> float:
        removal_map(removals(full_scores(), (ratio,)), tmp_path / name)
        pixels = np.asarray(Image.open(tmp_path / name).convert("RGB"))
        return float((pixels == (0xE4, 0x57, 0x2E)).all(axis=-1).mean())

    assert 1.5 * share("few.png", 0.1) < share("many.png", 0.25)


@pytest.mark.parametrize("n_layers", [24, 36, 64])
def test_a_strip_is_at_least_a_tenth_of_an_inch_per_layer(n_layers: int, tmp_path: Path) -> None:
    removal_map(removals(full_scores(n_layers), (0.25,)), tmp_path / "map.png")
    assert Image.open(tmp_path / "map.png").width > 160 * 0.1 * n_layers


def test_bad_input_is_named_and_leaves_no_figure(tmp_path: Path, curve: Path) -> None:
    other = score_table(illustration(), criterion="cosine/math")
    with pytest.raises(InputError, match="criterion"):
        profile_figure(other, tmp_path / "profile.png")
    with pytest.raises(InputError, match=r"png, svg, pdf"):
        pipeline_figure(tmp_path / "figure.gif", illustration(), plan())
    curve.write_text("step,loss\n1,2\n")
    with pytest.raises(InputError, match="learning_rate"):
        loss_figure(curve, tmp_path / "loss.png")
    results = evaluations()
    results["tuned"].scores.clear()
    with pytest.raises(InputError, match="no benchmark"):
        retention_figure(results, tmp_path / "retention.png")
    assert list(tmp_path.iterdir()) == [curve]


def test_nines_count_the_nines_and_end() -> None:
    values = nines(np.array([0.0, 0.9, 0.99, 1.0, 1.0000001]))
    assert values == pytest.approx([0, 1, 2, 6, 6])
