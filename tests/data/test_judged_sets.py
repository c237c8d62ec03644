from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from build_judged_set import build_judged_set, convert_llava_onevision, main
from click.testing import CliRunner
from models import picture
from PIL import Image
from typeset import MARGIN, WIDTH, _lines, typeset

from interlace.evaluation.run.validate import validate
from interlace.params.evaluating import Evaluate, Judge


def numina(n: int) -> list[dict[str, Any]]:
    problems = [f"Find $x_{{{i}}}$ if $x^2 = {i * i}$." for i in range(n)]
    return [
        {"problem": problem, "solution": f"It is $\\boxed{{{i}}}$."}
        for i, problem in enumerate(problems)
    ]


def llava(*messages: str, image: bool = True) -> dict[str, Any]:
    conversation = [
        {"from": "gpt" if i % 2 else "human", "value": text} for i, text in enumerate(messages)
    ]
    image_column = {"bytes": picture(0), "path": "a.png"} if image else None
    return {"id": "1", "image": image_column, "conversations": conversation, "data_source": "x"}


def write(rows: list[dict[str, Any]], path: Path, **settings: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, **settings)
    return path


def ink(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L")) < 128


def test_problems_become_images_and_solutions_targets(tmp_path: Path) -> None:
    write(numina(4), tmp_path / "data/train-0.parquet", row_group_size=3)
    write(numina(3), tmp_path / "data/train-1.parquet")
    out = tmp_path / "out.parquet"
    words = ["numinamath", str(tmp_path / "data"), str(out), "--rows", "5"]
    assert f"{out}: 5 questions" in CliRunner().invoke(main, words).output
    validate(Evaluate(judged=(str(out),), judge=Judge(url="http://localhost:1/v1", model="any")))
    rows = pq.read_table(out).to_pylist()
    assert {row["source"] for row in rows} == {"NuminaMath"}
    assert all("boxed" in row["texts"][0]["assistant"] for row in rows)
    assert all("x^2" not in row["texts"][0]["user"] for row in rows)
    image = Image.open(io.BytesIO(rows[0]["images"][0]["bytes"]))
    assert image.width == WIDTH and ink(image).any()


def test_the_same_seed_draws_the_same_rows_and_more_rows_extend_fewer(tmp_path: Path) -> None:
    source = write(numina(8), tmp_path / "in.parquet")

    def solutions(rows: int, seed: int) -> list[Any]:
        out = tmp_path / "out.parquet"
        build_judged_set("numinamath", source, out, rows=rows, seed=seed)
        return [row["texts"][0]["assistant"] for row in pq.read_table(out).to_pylist()]

    assert solutions(3, 1) == solutions(6, 1)[:3]
    assert solutions(3, 1) != solutions(3, 2)


def test_a_conversation_loses_its_placeholder_and_keeps_its_turns() -> None:
    row = convert_llava_onevision(llava("<image>\nWhat?", "A dog.", "Why?", "It barks."))
    assert row and row["texts"] == [
        {"user": "What?", "assistant": "A dog."},
        {"user": "Why?", "assistant": "It barks."},
    ]
    assert row["images"][0]["bytes"] == picture(0)
    text_only = convert_llava_onevision(llava("What?", "It.", image=False))
    assert text_only and text_only["images"] == []


@pytest.mark.parametrize(
    "row", [llava(), llava("What?"), llava("<image>", "A dog."), llava("What?", " ")]
)
def test_a_row_without_question_or_answer_is_skipped(row: dict[str, Any]) -> None:
    assert convert_llava_onevision(row) is None


@pytest.mark.parametrize(
    ("name", "rows", "complaint"),
    [
        ("numinamath", [], r"nowhere: no such \.parquet file"),
        ("numinamath", [{"x": 1}], "NuminaMath.*'problem' is missing"),
        ("llava-onevision", [llava("", "")], "no row holds a question"),
    ],
)
def test_wrong_data_is_refused_in_one_line(
    tmp_path: Path, name: str, rows: list[dict[str, Any]], complaint: str
) -> None:
    source = write(rows, tmp_path / "in.parquet") if rows else tmp_path / "nowhere"
    result = CliRunner().invoke(main, [name, str(source), str(tmp_path / "out.parquet")])
    assert result.exit_code == 2
    assert re.search(rf"error: .*{complaint}.*\n\Z", result.output)
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(
    ("problem", "lines"),
    [
        (r"Let \(x\) be \[ \dfrac{1}{2} \] now", [r"Let $x$ be $ \frac{1}{2} $ now"]),
        (r"costs \$5 and $y$", [r"costs \$5 and $y$"]),
        (r"a $\begin{array}{c}1\end{array}$ b", [r"a \$\begin{array}{c}1\end{array}\$ b"]),
        ("odd $ sign", [r"odd \$ sign"]),
        ("one\n\ntwo", ["one", "two"]),
        (r"$x \text{ is even}$", [r"$x \mathrm{ is even}$"]),
    ],
)
def test_a_formula_that_cannot_be_set_keeps_its_source(problem: str, lines: list[str]) -> None:
    assert list(_lines(problem)) == lines
    assert ink(typeset(problem)).any()


def test_a_formula_that_is_too_wide_makes_the_image_wider() -> None:
    image = typeset("$" + "+".join(f"x_{{{i}}}" for i in range(60)) + "$")
    assert image.width > WIDTH
    assert not ink(image)[:, -MARGIN // 2 :].any()


def test_long_problems_wrap_within_the_margins() -> None:
    image = typeset("the sum of all $x_i^2$ over the set " * 20)
    assert image.height > 5 * MARGIN
    for pixels in (ink(image), ink(image).T):
        assert not pixels[: MARGIN // 2].any() and not pixels[-MARGIN // 2 :].any()
