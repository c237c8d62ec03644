"""One look for every figure, and a way to save them that gives the same bytes each time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from interlace.errors import InputError
from interlace.printable import one_line
from interlace.report.facts.roles import Role
from interlace.report.facts.scale import nines
from interlace.system.outputs import whole

INK, MUTED, HAIRLINE = "#1F2937", "#6B7280", "#D1D5DB"
SPAN_COLOURS = {1: "#46648C", 2: "#D99A2B", 3: "#8E4585"}  # S_1, S_2, S_3
ROLE_COLOURS = {  # told apart by readers with any colour vision
    Role.DROP: "#E4572E",
    Role.TUNE: "#1B998B",
    Role.ANCHOR: "#46648C",
    Role.PROTECTED: "#93A1B5",
    Role.FREEZE: "#D5DCE6",
}
MODEL_COLOURS = {"dense": "#46648C", "pruned": "#E4572E", "tuned": "#1B998B"}
# The same for text: at least 4.5:1 on white.
MODEL_INKS = {"dense": "#46648C", "pruned": "#C93F19", "tuned": "#157F74"}
LINE_COLOURS = (  # of lines that have no fixed meaning
    *("#46648C", "#E4572E", "#1B998B", "#D99A2B"),
    *("#8E4585", "#5DA9E9", "#6B7280", "#3A2E39"),
)
SEQUENTIAL = ("#F4F6F9", "#C3D0E0", "#7F9CBF", "#46648C", "#1B2A44")  # pale is low; grey prints too

LONGEST = 44  # letters of a name
NINES = (
    0.0,
    0.5,
    0.8,
    0.9,
    0.95,
    0.98,
    0.99,
    0.995,
    0.998,
    0.999,
    0.9995,
    0.9999,
)  # ticks of cosines

STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 9.5,
    "grid.color": "#E9ECF1",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "savefig.dpi": 160,
    "svg.fonttype": "path",
    "svg.hashsalt": "interlace",
    "text.parse_math": False,  # names hold dollars; our own formulas say parse_math=True
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}
METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


@contextmanager
def drawn(
    path: Path, width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Iterator[Figure]:
    """Yield an empty figure in the house style; write it to `path` when the block ends well.

    Args:
        path: file to write; its suffix is the format, one of `METADATA`.
        width: inches.
        height: inches.
        layout: matplotlib's layout engine; None: the caller places the axes.

    Raises:
        InputError: a format that cannot be written with the same bytes each time.
    """
    kind = path.suffix.removeprefix(".")
    if kind not in METADATA:
        raise InputError(f"{path}: figures are written as {', '.join(METADATA)}")
    look = {**matplotlib.rcParamsDefault, **STYLE, "backend": "agg"}
    with matplotlib.rc_context(look), warnings.catch_warnings():
        # a letter that the font lacks is drawn as a box
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width, height), layout=layout)
        yield figure
        with whole(path) as partial:
            figure.savefig(partial, format=kind, metadata=METADATA[kind])


def label(name: str, longest: int = LONGEST) -> str:
    """Return a name from outside as a figure can show it: one line of printable letters, cut."""
    line = one_line(name)
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def with_formulas(legend: Legend) -> None:
    """Read dollars in a legend of our own words as formulas."""
    for text in legend.get_texts():
        text.set_parse_math(True)


def scale_in_nines(axes: Axes, low: float, high: float) -> None:
    """Label the y axis of values passed through `nines` by the cosines themselves.

    Args:
        axes: already drawn on.
        low: the least cosine shown.
        high: the greatest.
    """
    bottom, top = nines(np.array([low, high]))
    room = 0.06 * max(top - bottom, 0.1)
    ticks = [tick for tick in NINES if bottom - room <= nines(np.array(tick)) <= top + room]
    axes.set_ylim(bottom - room, top + room)
    axes.set_yticks(nines(np.array(ticks)), [f"{tick:g}" for tick in ticks])
