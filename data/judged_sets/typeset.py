"""Typeset a mathematical problem, text with LaTeX, as an image.

matplotlib's mathtext sets the formulas without TeX. A formula that it cannot set (arrays, cases,
macros) appears as its LaTeX source, so no part of a problem is lost.
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
    r"""Typeset a problem on white; the image is as high as the text.

    Args:
        problem: paragraphs of text, with formulas in $...$, $$...$$, \(...\) or \[...\].

    Returns:
        RGB, `WIDTH` pixels wide, or wider for a wider formula. The same text and version of
        matplotlib give the same pixels.
    """
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg"}):
        lines = list(_lines(problem))
        sizes = [_size(line) for line in lines]
        width = max(WIDTH, *(2 * MARGIN + ceil(line_width) for line_width, _, _ in sizes))
        height = 2 * MARGIN + sum(round(above + below) + LEADING for _, above, below in sizes)
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        canvas = FigureCanvasAgg(figure)
        top = float(MARGIN)
        for line, (_, above, below) in zip(lines, sizes, strict=True):
            baseline = 1 - (top + above) / height
            figure.text(MARGIN / width, baseline, line, fontsize=SIZE, va="baseline", color="black")
            top += round(above + below) + LEADING
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _lines(problem: str) -> Iterator[str]:
    """Split a problem into lines that fit and that mathtext can set."""
    inline = DISPLAYED.sub(lambda match: f" ${' '.join(filter(None, match.groups()))}$ ", problem)
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
    """Return a word or formula; escape its dollars if mathtext cannot set it."""
    if token.replace(r"\$", "").count("$") % 2 == 0:
        try:
            _size(token)
            return token
        except ValueError:
            pass
    return re.sub(r"(?<!\\)\$", r"\\$", token)


@functools.lru_cache(maxsize=4096)
def _size(line: str) -> tuple[float, float, float]:
    """Measure a line: width, height above the baseline, depth below it, pixels."""
    font = FontProperties(family="DejaVu Sans", size=SIZE)
    box = MathTextParser("path").parse(line, dpi=DPI, prop=font)
    return float(box.width), max(float(box.height), float(SIZE)), float(box.depth)
