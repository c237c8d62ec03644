"""A mathematical problem as text with LaTeX -> an image of it.

Formulas are set by matplotlib's mathtext, which needs no TeX. What it cannot set (arrays, cases,
macros) stays on the image as it is written, so that nothing of a problem is lost.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from math import ceil

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser
from PIL import Image

WIDTH = 768  # pixels of an image
MARGIN = 24  # pixels on each side
SIZE = 20  # pixels of the letters
LEADING = 12  # pixels between lines
DPI = 72  # so that a point is a pixel
DISPLAYED = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)", re.DOTALL)
TOKEN = re.compile(r"\S*?(?<!\\)\$[^$]+(?<!\\)\$\S*|\S+")
REPLACED = (
    (re.compile(r"\\[dt]frac\b"), r"\\frac"),
    (re.compile(r"\\(?:text|textbf|textit|mbox|operatorname)\s*\{([^{}]*)\}"), r"\\mathrm{\1}"),
    (re.compile(r"\\(?:displaystyle|textstyle|limits|,|!|;)"), " "),
)


def typeset(problem: str) -> Image.Image:
    r"""Set a problem on white, as high as it needs.

    Args:
        problem: paragraphs of text, with formulas in $...$, $$...$$, \(...\) or \[...\].

    Returns:
        RGB, `WIDTH` pixels wide, or as wide as its widest formula; the same pixels for the same
        text and matplotlib.
    """
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg"}):
        lines = list(_lines(problem))
        sizes = [_size(line) for line in lines]
        width = max(WIDTH, *(2 * MARGIN + ceil(wide) for wide, _, _ in sizes))
        height = 2 * MARGIN + sum(round(high + deep) + LEADING for _, high, deep in sizes)
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        canvas = FigureCanvasAgg(figure)
        top = float(MARGIN)
        for line, (_, high, deep) in zip(lines, sizes, strict=True):
            base = 1 - (top + high) / height
            figure.text(MARGIN / width, base, line, fontsize=SIZE, va="baseline", color="black")
            top += round(high + deep) + LEADING
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _lines(problem: str) -> Iterator[str]:
    """Lines that fit, in a form that mathtext can set."""
    inline = DISPLAYED.sub(lambda found: f" ${' '.join(filter(None, found.groups()))}$ ", problem)
    for pattern, replacement in REPLACED:
        inline = pattern.sub(replacement, inline)
    for paragraph in inline.splitlines():
        line = ""
        for token in TOKEN.findall(paragraph):
            word = _settable(token)
            longer = f"{line} {word}" if line else word
            if line and _size(longer)[0] > WIDTH - 2 * MARGIN:
                yield line
                longer = word
            line = longer
        if line:
            yield line


@functools.lru_cache(maxsize=4096)
def _settable(token: str) -> str:
    """A word or formula, with its dollars escaped where mathtext cannot set it."""
    if token.replace(r"\$", "").count("$") % 2 == 0:
        try:
            _size(token)
            return token
        except ValueError:
            pass
    return re.sub(r"(?<!\\)\$", r"\\$", token)


@functools.lru_cache(maxsize=4096)
def _size(line: str) -> tuple[float, float, float]:
    """Width of a line, and its height above and below the base line, pixels."""
    font = FontProperties(family="DejaVu Sans", size=SIZE)
    made = MathTextParser("path").parse(line, dpi=DPI, prop=font)
    return float(made.width), max(float(made.height), float(SIZE)), float(made.depth)
