from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from models import picture
from PIL import Image

from interlace.cli import main
from interlace.errors import InputError
from interlace.evaluation.benchmarks.judged_sets import SETS, llava_onevision, make_judged_set
from interlace.evaluation.benchmarks.typeset import MARGIN, WIDTH, _lines, typeset
from interlace.evaluation.run.validate import validate
from interlace.params.evaluating import Evaluate, Judge


def numina(n: int) -> list[dict[str, Any]]:
    return [
        {
            "source": "olympiads",
            "problem": f"Find $x_{{{i}}}$ if $x^2 = {i * i}$.",
            "solution": f"It is $\\boxed{{{i}}}$.",
            "messages": [],
        }
        for i in range(n)
    ]


def llava(*values: str, image: bool = True) -> dict[str, Any]:
    said = [{"from": "gpt" if i % 2 else "human", "value": value} for i, value in enumerate(values)]
    shown = {"bytes": picture(0), "path": "a.png"} if image else None
    return {"id": "1", "image": shown, "conversations": said, "data_source": "x"}


def write(rows: list[dict[str, Any]], path: Path, **settings: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, **settings)
    return path


def ink(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L")) < 128


def test_problems_become_images_and_solutions_true_answers(tmp_path: Path) -> None:
    write(numina(4), tmp_path / "data/train-0.parquet", row_group_size=3)
    write(numina(3), tmp_path / "data/train-1.parquet")
    out = tmp_path / "out.parquet"
    assert make_judged_set("numinamath", tmp_path / "data", out, rows=5) == 5
    validate(Evaluate(judged=(str(out),), judge=Judge(url="http://localhost:1/v1", model="any")))
    rows = pq.read_table(out).to_pylist()
    assert {row["source"] for row in rows} == {"NuminaMath"}
    assert all("boxed" in row["texts"][0]["assistant"] for row in rows)
    assert all("x^2" not in row["texts"][0]["user"] for row in rows)
    image = Image.open(io.BytesIO(rows[0]["images"][0]["bytes"]))
    assert image.width == WIDTH and ink(image).any()


def test_the_same_seed_draws_the_same_bytes_and_more_rows_keep_the_fewer(tmp_path: Path) -> None:
    source = write(numina(8), tmp_path / "in.parquet")

    def drawn(rows: int, seed: int) -> list[Any]:
        out = tmp_path / "out.parquet"
        make_judged_set("numinamath", source, out, rows=rows, seed=seed)
        return [row["texts"][0]["assistant"] for row in pq.read_table(out).to_pylist()]

    assert drawn(3, 1) == drawn(6, 1)[:3]
    assert drawn(3, 1) != drawn(3, 2)


def test_a_conversation_loses_its_placeholder_and_keeps_its_turns() -> None:
    made = llava_onevision(llava("<image>\nWhat?", "A dog.", "Why?", "It barks."))
    assert made and made["texts"] == [
        {"user": "What?", "assistant": "A dog."},
        {"user": "Why?", "assistant": "It barks."},
    ]
    assert made["images"][0]["bytes"] == picture(0)
    text_only = llava_onevision(llava("What?", "It.", image=False))
    assert text_only and text_only["images"] == []


@pytest.mark.parametrize(
    "row", [llava(), llava("What?"), llava("<image>", "A dog."), llava("What?", " ")]
)
def test_a_row_that_asks_nothing_is_passed_over(row: dict[str, Any]) -> None:
    assert llava_onevision(row) is None


def test_mistakes_are_named(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    with pytest.raises(InputError, match=r"no such .parquet file"):
        make_judged_set("numinamath", tmp_path / "none", out, rows=1)
    other = write([{"x": 1}], tmp_path / "other.parquet")
    with pytest.raises(InputError, match="not NuminaMath's data: column 'problem' is missing"):
        make_judged_set("numinamath", other, out, rows=1)
    empty = write([llava("", "")], tmp_path / "empty.parquet")
    with pytest.raises(InputError, match="no row holds a question"):
        make_judged_set("llava-onevision", empty, out, rows=1)
    assert not out.exists()


def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    source = write(numina(2), tmp_path / "in.parquet")
    words = ["judged-set", "numinamath", str(source), str(tmp_path / "out.parquet")]
    result = CliRunner().invoke(main, words)
    assert "wrote 2 questions to" in result.output
    names = next(p for p in main.commands["judged-set"].params if p.name == "name")
    assert list(names.type.choices) == list(SETS)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        (r"Let \(x\) be \[ \dfrac{1}{2} \] now", [r"Let $x$ be $ \frac{1}{2} $ now"]),
        (r"costs \$5 and $y$", [r"costs \$5 and $y$"]),
        (r"a $\begin{array}{c}1\end{array}$ b", [r"a \$\begin{array}{c}1\end{array}\$ b"]),
        ("odd $ sign", [r"odd \$ sign"]),
        ("one\n\ntwo", ["one", "two"]),
        (r"$x \text{ is even}$", [r"$x \mathrm{ is even}$"]),
    ],
)
def test_formulas_are_set_and_what_cannot_be_stays_as_written(
    written: str, lines: list[str]
) -> None:
    assert list(_lines(written)) == lines
    assert ink(typeset(written)).any()


def test_a_formula_that_is_too_wide_makes_the_image_wider() -> None:
    image = typeset("$" + "+".join(f"x_{{{i}}}" for i in range(60)) + "$")
    assert image.width > WIDTH
    assert not ink(image)[:, -MARGIN // 2 :].any()


def test_long_problems_wrap_inside_of_the_margins() -> None:
    image = typeset("the sum of all $x_i^2$ over the set " * 20)
    drawn = ink(image)
    assert image.height > 5 * MARGIN
    assert not drawn[:, : MARGIN // 2].any() and not drawn[:, -MARGIN // 2 :].any()
    assert not drawn[: MARGIN // 2].any() and not drawn[-MARGIN // 2 :].any()
