"""All that a forecast is computed from: parameters, model, rows, machine."""

from __future__ import annotations

import re
from dataclasses import dataclass

from interlace.evaluation.benchmarks.catalogue import find_benchmark
from interlace.params.whole import Params
from interlace.project.forecast.machine import Machine
from interlace.project.forecast.row_facts import RowFacts, Spread
from interlace.project.forecast.sizes import Sizes
from interlace.speed.requests import SHAPES, Shape

_PROCESSES = re.compile(r"--nproc[-_]per[-_]node[ =](\d+)")
_NODES = re.compile(r"--nnodes[ =](\d+)")
_LARGEST = 16_777_216  # pixels: the bound of Qwen3-VL's own processor
ELEMENTS = {"float32": 4, "bfloat16": 2, "float16": 2}
ROWS = {  # of the benchmarks, as lmms-eval 0.7 runs them
    **{"AI2D": 3088, "ChartQA": 2500, "OCRBench": 1000, "TextVQA": 5000, "MMBench": 4329},
    **{"POPE": 9000, "RealWorldQA": 765, "HRBench4K": 800, "HRBench8K": 800, "VStar": 191},
    **{"MIABench": 400, "ScienceQA": 4241},
}


def processes_of(launch: str) -> int:
    """Return the number of processes that a launch prefix starts, as far as its words say."""
    matches = [pattern.search(launch) for pattern in (_PROCESSES, _NODES)]
    per_node, nodes = (int(match[1]) if match else 1 for match in matches)
    return per_node * nodes


@dataclass(frozen=True)
class Questions:
    """Prompts of a benchmark, or of a held-out file.

    Attributes:
        rows: how many.
        tokens: of a prompt, those of its image among them.
        image: tokens of its image.
        answer: the longest answer, tokens.
        with_loss: the loss on true answers is measured as well.
    """

    rows: int
    tokens: Spread
    image: float
    answer: int
    with_loss: bool = False


@dataclass(frozen=True)
class Setting:
    """All that a forecast is computed from.

    Attributes:
        params: all parameters.
        dense: sizes of the dense model.
        drops: layers that go.
        tunes: layers that are tuned.
        rows: the rows that are drawn.
        heldout: questions of local files; those of benchmarks follow from `params`.
        machine: where the run is to take place.
        fetched: bytes of the model that are still to be fetched from the hub.
    """

    params: Params
    dense: Sizes
    drops: int
    tunes: int
    rows: RowFacts
    heldout: tuple[Questions, ...]
    machine: Machine
    fetched: float

    @property
    def pruned(self) -> Sizes:
        """Sizes of the pruned model."""
        return self.dense.pruned(self.drops)

    @property
    def processes(self) -> int:
        """Processes of the stages that `launch` starts."""
        return processes_of(self.params.launch)

    def element(self, dtype: str) -> int:
        """Return the bytes of a number of a type to compute in."""
        return ELEMENTS.get(dtype, self.machine.element)

    @property
    def prompts(self) -> Spread:
        """Tokens of a calibration prompt."""
        measure, rows = self.params.measure, self.rows
        return rows.tokens(rows.prompt, self.dense.patch, measure.max_pixels, measure.max_length)

    @property
    def answered(self) -> Spread:
        """Tokens of a calibration row with its answers."""
        measure, rows = self.params.measure, self.rows
        return rows.tokens(rows.text, self.dense.patch, measure.max_pixels, measure.max_length)

    @property
    def trained(self) -> Spread:
        """Tokens of a training row."""
        recipe, rows = self.params.finetune, self.rows
        return rows.tokens(rows.text, self.dense.patch, recipe.max_pixels, recipe.max_length)

    @property
    def trained_rows(self) -> int:
        """Rows to train on: those that are drawn, or that the dense model answers."""
        answers = self.params.answers
        few = answers.samples if answers.source == "dense" else None
        return min(few or self.rows.train, self.rows.train)

    def image_tokens(self, max_pixels: int | None) -> float:
        """Return the mean tokens of a row's images under a bound on their area."""
        return self.rows.images.mean * self.rows.image_tokens(self.dense.patch, max_pixels).mean

    @property
    def questions(self) -> list[Questions]:
        """All that `evaluate` asks a model."""
        evaluate = self.params.evaluate
        benchmarks = [
            self._benchmark(find_benchmark(name).published, evaluate.longest)
            for name in evaluate.benchmarks
        ]
        return [*benchmarks, *self.heldout]

    def _benchmark(self, name: str, longest: int) -> Questions:
        rows = min(ROWS[name], self.params.evaluate.limit or ROWS[name])
        image = self.shape_image(SHAPES[name], self.params.evaluate.max_pixels)
        tokens = SHAPES[name].text_tokens + 15 + image  # 15: of a chat template
        return Questions(rows, Spread(tokens, tokens), image, longest)

    def shape_image(self, shape: Shape, max_pixels: int | None) -> float:
        """Return the tokens of an image of a typical request."""
        patch, area = self.dense.patch, shape.width * shape.height
        if not patch.pixels:
            return patch.fixed
        return min(area, max_pixels or _LARGEST, _LARGEST) / patch.pixels
