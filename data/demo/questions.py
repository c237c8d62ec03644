"""The demo's sources: each makes one FineVision row from a random generator.

A source is a function `(rng, handwriting) -> (drawings, turns)`; a turn is a (user, assistant)
pair. The first turn is the source's own question. Training rows of one image keep up to two further
questions about the same image; held-out rows keep the first only, but for dialogues.
"""

from collections.abc import Callable

import numpy as np
from drawing import (
    COLOURS,
    KINDS,
    Drawing,
    Handwriting,
    Shape,
    bar_chart,
    handwriting,
    in_cells,
    scene,
)

Turn = tuple[str, str]
Row = tuple[list[Drawing], list[Turn]]
Rng = np.random.Generator

NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Gina", "Hugo", "Iris", "Jonas")
THINGS = ("key", "map", "book", "lamp", "coin", "bell", "rope", "drum", "cup", "ring")
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}


def one_of(rng: Rng, options: list | tuple) -> object:
    """One option, uniformly."""
    return options[rng.integers(len(options))]


def some_of(rng: Rng, options: list | tuple, n: int) -> list:
    """`n` different options in random order."""
    return [options[index] for index in rng.permutation(len(options))[:n]]


def first_then_others(rng: Rng, asked: Turn, others: list[Turn]) -> list[Turn]:
    """Return a question and two others, all different."""
    return [asked, *some_of(rng, [turn for turn in others if turn[0] != asked[0]], 2)]


def page(values: list[int], rng: Rng, hand: Handwriting) -> Drawing:
    """One image of these digits, handwritten."""
    image = handwriting([hand.draw(value, rng) for value in values], rng)
    return Drawing(image, digits=tuple(values))


def digit_read(rng: Rng, hand: Handwriting) -> Row:
    """Ask which digit is written."""
    digit = int(rng.integers(10))
    asked = one_of(rng, ["Which digit is this?", "Read the digit.", "What digit is written here?"])
    return [page([digit], rng, hand)], [(asked, str(digit))]


def about_two_digits(rng: Rng, left: int, right: int) -> dict[str, Turn]:
    """Questions about two handwritten digits, by kind."""
    plus = int(rng.integers(1, 6))
    word, pick = one_of(rng, [("larger", max), ("smaller", min)])
    return {
        "read": (one_of(rng, ["Which number is this?", "Read the number."]), f"{left}{right}"),
        "sum": (one_of(rng, ["Add the two digits.", "What is the sum?"]), str(left + right)),
        "two step": (f"What is the {word} digit plus {plus}?", str(pick(left, right) + plus)),
        "left": ("Which digit is on the left?", str(left)),
        "right": ("Which digit is on the right?", str(right)),
        "pick": (f"Which digit is {word}?", str(pick(left, right))),
    }


def two_digits(kind: str) -> Callable[[Rng, Handwriting], Row]:
    """Make a source that asks one kind of question about two handwritten digits."""

    def source(rng: Rng, hand: Handwriting) -> Row:
        left, right = (int(digit) for digit in rng.integers(0, 10, 2))
        turns = about_two_digits(rng, left, right)
        image = page([left, right], rng, hand)
        return [image], first_then_others(rng, turns[kind], list(turns.values()))

    return source


def about_bars(rng: Rng, bars: list[tuple[str, int]]) -> dict[str, list[Turn]]:
    """Questions about a bar chart, by kind; heights are all different."""
    ranked = sorted(bars, key=lambda bar: bar[1])
    (first, high), (second, low) = sorted(some_of(rng, bars, 2), key=lambda bar: -bar[1])
    return {
        "read": [(f"How high is the {colour} bar?", str(value)) for colour, value in bars],
        "compare": [
            (f"Which bar is the {word}?", ranked[place][0])
            for word, place in (("highest", -1), ("lowest", 0))
        ],
        "difference": [(f"How much higher is {first} than {second}?", str(high - low))],
    }


def bars(kind: str) -> Callable[[Rng, Handwriting], Row]:
    """Make a source that asks one kind of question about a chart of three bars."""

    def source(rng: Rng, hand: Handwriting) -> Row:
        heights = [int(height) + 1 for height in rng.permutation(9)[:3]]
        shown = list(zip(some_of(rng, tuple(COLOURS), 3), heights, strict=True))
        turns = about_bars(rng, shown)
        asked = one_of(rng, turns[kind])
        others = [turn for group in turns.values() for turn in group]
        drawing = Drawing(bar_chart(shown, rng), bars=tuple(shown))
        return [drawing], first_then_others(rng, asked, others)

    return source


def counted(rng: Rng) -> tuple[Drawing, list[Turn]]:
    """Draw 3 to 10 shapes; count those of each colour and of each kind."""
    n = int(rng.integers(3, 11))
    looks = [(one_of(rng, KINDS), one_of(rng, tuple(COLOURS))) for _ in range(n)]
    turns = [
        (f"How many {name} shapes are there?", str(sum(name in look for look in looks)))
        for name in (*COLOURS, *KINDS)
    ]
    shapes = in_cells(looks, rng)
    return Drawing(scene(shapes, rng), shapes=tuple(shapes)), turns


def shape_count(rng: Rng, hand: Handwriting) -> Row:
    """Ask how many shapes of a kind or colour there are."""
    image, turns = counted(rng)
    return [image], some_of(rng, turns, 3)


def shape_dialogue(rng: Rng, hand: Handwriting) -> Row:
    """Three turns; the later questions only make sense after the first."""
    image, turns = counted(rng)
    first, *later = some_of(rng, turns, 3)
    asked = [(f"And {user.split()[2]}?", count) for user, count in later]
    return [image], [first, *asked]


def shape_relation(rng: Rng, hand: Handwriting) -> Row:
    """Two steps: find a shape, then what is left of, right of, above or below it."""
    colours, kinds = some_of(rng, tuple(COLOURS), 4), some_of(rng, KINDS, 4)
    grid = {
        (place % 2, place // 2): Shape(
            kinds[place], colours[place], 16 + 32 * (place % 2), 16 + 32 * (place // 2), 12
        )
        for place in range(4)
    }
    turns = []
    for relation, (dx, dy) in RELATIONS.items():
        for (x, y), anchor in grid.items():
            if target := grid.get((x + dx, y + dy)):
                turns.append((f"What is {relation} the {anchor.colour} shape?", target.kind))
                turns.append((f"Which colour is {relation} the {anchor.kind}?", target.colour))
    where = [(f"What is {shape.colour}?", shape.kind) for shape in grid.values()]
    shapes = list(grid.values())
    drawing = Drawing(scene(shapes, rng), shapes=tuple(shapes))
    return [drawing], [one_of(rng, turns), *some_of(rng, turns + where, 2)]


def image_order(rng: Rng, hand: Handwriting) -> Row:
    """Two images of one handwritten digit each: which shows the larger or smaller one?"""
    values = [int(value) for value in rng.permutation(10)[:2]]
    word, pick = one_of(rng, (("larger", max), ("smaller", min)))
    answer = ("first", "second")[values.index(pick(values))]
    turns = [(f"Which image shows the {word} digit?", answer)]
    turns += [
        (f"Which digit is in the {place} image?", str(value))
        for place, value in zip(("first", "second"), values, strict=True)
    ]
    return [page([value], rng, hand) for value in values], turns


def text_compare(rng: Rng, hand: Handwriting) -> Row:
    """No image: the largest or smallest of three numbers."""
    values = [int(value) for value in rng.permutation(90)[:3] + 10]
    turns = [
        (f"Which is the {word}: {values[0]}, {values[1]} or {values[2]}?", str(pick(values)))
        for word, pick in (("largest", max), ("smallest", min))
    ]
    return [], some_of(rng, turns, 2)


def text_lookup(rng: Rng, hand: Handwriting) -> Row:
    """No image: who has what, from three facts."""
    owners = list(zip(some_of(rng, NAMES, 3), some_of(rng, THINGS, 3), strict=True))
    facts = " ".join(f"{name} has the {thing}." for name, thing in owners)
    turns = [(f"Who has the {thing}?", name) for name, thing in owners]
    turns += [(f"What does {name} have?", thing) for name, thing in owners]
    (asked, answer), *others = some_of(rng, turns, 3)
    return [], [(f"{facts} {asked}", answer), *others]


# Source -> (function, share of the rows). Sources that are harder to learn get a few more.
SOURCES: dict[str, tuple[Callable[[Rng, Handwriting], Row], float]] = {
    "digit_read": (digit_read, 1.0),
    "digit_pair": (two_digits("read"), 1.0),
    "digit_sum": (two_digits("sum"), 1.4),
    "digit_two_step": (two_digits("two step"), 1.4),
    "bar_read": (bars("read"), 1.0),
    "bar_compare": (bars("compare"), 0.8),
    "bar_difference": (bars("difference"), 1.2),
    "shape_count": (shape_count, 1.2),
    "shape_relation": (shape_relation, 1.2),
    "shape_dialogue": (shape_dialogue, 1.0),
    "image_order": (image_order, 1.2),
    "text_compare": (text_compare, 0.8),
    "text_lookup": (text_lookup, 0.8),
}
# Two sources that ask for a search before the answer. At this size and this much training the model
# does not master them (it answers less than half); they are trained on and not held out.
PRACTICE = ("shape_relation", "text_lookup")
DIALOGUES = ("shape_dialogue",)
MATH_SOURCES = ("digit_sum", "digit_two_step", "bar_difference", "text_compare")
