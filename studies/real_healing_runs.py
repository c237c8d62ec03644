"""The trainings of the study of healing on real weights: ways to heal, and one run of a way."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from interlace.params.healing import Finetune
from interlace.params.section import merged
from interlace.plan.record import Plan, Tuned
from interlace.scores.table import SEARCH
from studies.laptop import LAPTOP
from studies.real_healing_inputs import TEXTS, Text

PRUNED = "pruned"  # the way of a model that is not healed
RECIPE, RECIPE_OWN, LOCAL = "recipe on labels", "recipe on own answers", "local"
INTERLACE, STAND_IN = "interlace", "interlace-optimal"  # the latter where triplets run out
ANGULAR, CONSECUTIVE = "angular-block", "consecutive"
Cell = tuple[str, float]  # a method and a ratio
CELLS: tuple[Cell, ...] = (  # what matters most first
    (INTERLACE, 0.25),
    (STAND_IN, 0.4),
    (ANGULAR, 0.25),
    (ANGULAR, 0.4),
    (CONSECUTIVE, 0.25),
    (SEARCH, 0.25),
    (SEARCH, 0.4),
)
RATES_FROM: dict[Cell, Cell] = {  # a plan, and the one that its learning rates are chosen on
    **{cell: cell for cell in CELLS},
    (ANGULAR, 0.4): (ANGULAR, 0.25),
    (SEARCH, 0.25): (INTERLACE, 0.25),
    (SEARCH, 0.4): (STAND_IN, 0.4),
}
SEEDS = (0, 1)
LOWER = 0.3  # of learning rates after compensation
BATCH = 2  # rows of an update


@dataclass(frozen=True)
class Way:
    """A way to heal.

    Attributes:
        meaning: in words, for the page.
        answers: to train on.
        rates: learning rates to choose from; see `rates_of`.
        local: True to train layer by layer, False to train end to end.
        distilled: weight of the divergence from the dense model's distribution.
        tuned: layers to tune.
        cells: plans that it is tried on; none: on all.
    """

    meaning: str
    answers: Text
    rates: tuple[float, ...]
    local: bool = False
    distilled: float = 0.0
    tuned: Tuned = "planned"
    cells: tuple[Cell, ...] = ()


WAYS = {
    RECIPE: Way("end to end on the data's answers, as published", "labels", (3e-4, 1e-3, 3e-3)),
    RECIPE_OWN: Way("the same on the dense model's answers", "own", (3e-4, 1e-3, 3e-3)),
    LOCAL: Way("layer by layer, on the dense model's answers", "own", (1e-3, 3e-3, 1e-2), True),
    "distilled": Way(
        "end to end on the dense model's answers and its distribution at their tokens",
        "own",
        (3e-4, 1e-3, 3e-3),
        distilled=3.0,
    ),
    "recipe on drawn answers": Way(
        "the recipe on answers drawn from the dense model's distribution, for one plan and seed",
        "sampled",
        (3e-4, 1e-3, 3e-3),
        cells=CELLS[:1],
    ),
    "distilled on drawn answers": Way(
        "distilled on these",
        "sampled",
        (3e-4, 1e-3, 3e-3),
        distilled=3.0,
        cells=CELLS[:1],
    ),
}


def rates_of(run: Run) -> list[float]:
    """Return the learning rates that a run's one is chosen from: lower after compensation.

    Compensated weights are near their goal, and the rates of plain ones would lead away from it.
    """
    rates = WAYS[run.way].rates
    return [float(f"{rate * LOWER:.0e}") for rate in rates] if run.compensated else list(rates)


def texts_of(run: Run) -> list[Text]:
    """Return the texts that a model is judged on: drawn ones where some way trains on them."""
    drawn = any(WAYS[way].answers == "sampled" for way in ways_of(run.cell))
    return [text for text in TEXTS if text != "sampled" or drawn]


def ways_of(cell: Cell) -> list[str]:
    """Return the ways that a plan is healed in."""
    return [name for name, way in WAYS.items() if cell in (way.cells or CELLS)]


@dataclass(frozen=True)
class Run:
    """One model: pruned, perhaps compensated, and perhaps healed.

    Attributes:
        way: see `WAYS`, or `PRUNED`.
        compensated: True to start from compensated weights.
        seed: of the order of rows.
        rate: peak learning rate; 0 without healing.
    """

    method: str
    ratio: float
    way: str = PRUNED
    compensated: bool = False
    seed: int = 0
    rate: float = 0.0

    @property
    def cell(self) -> Cell:
        """The plan's method and ratio."""
        return self.method, self.ratio


def recipe(run: Run, rows: int, max_length: int) -> Finetune:
    """Return the options of a run: one pass over the rows.

    Args:
        run: of a way.
        rows: of the training set.
        max_length: of a row, tokens.
    """
    way, steps = WAYS[run.way], -(-rows // BATCH)
    return merged(
        Finetune,
        LAPTOP,
        max_steps=0 if way.local else steps,
        local_steps=steps if way.local else 0,
        learning_rate=run.rate,
        local_learning_rate=run.rate,
        distill_logits=way.distilled,
        batch_size=BATCH,
        micro_batch_size=BATCH,
        max_length=max_length,
        dtype="bfloat16",
    )


def run_name(run: Run, plan: Plan, params: Finetune | None) -> str:
    """Return a name for a run's files; it changes with all that the run depends on.

    Options that have their defaults are left out: one that is new renames nothing.
    """
    options = params and sorted(params.model_dump(exclude_defaults=True).items())
    content = repr((plan.drop, plan.tune, run.compensated, run.seed, options))
    way = run.way.replace(" ", "-")
    key = hashlib.sha256(content.encode()).hexdigest()[:8]
    return f"{run.method}-{run.ratio:g}-{way}-{key}"
