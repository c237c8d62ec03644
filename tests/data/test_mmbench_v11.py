from __future__ import annotations

import base64
import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
from build_mmbench import build_mmbench, main
from click.testing import CliRunner
from models import picture

from interlace.errors import InputError
from interlace.evaluation.benchmarks.catalogue import BENCHMARKS
from interlace.evaluation.run.isolation import isolated
from interlace.evaluation.run.validate import validate
from interlace.params.evaluating import Evaluate

N = 3
TURNED = 10**6  # of a question with its options in another order
PICTURES = [base64.b64encode(picture(i, side=32)).decode() for i in range(N)]


def write_table(path: Path, **changes: str) -> Path:
    """A table as VLMEvalKit has it: each question twice, the image only in its first row."""
    rows = [
        {
            "index": str(i + order * TURNED),
            "question": f'Which is "{i}"?',
            "hint": "" if i else "Look.\nWell.",
            **dict(zip("ABCD", ("one", "two", "", ""), strict=True)),
            "answer": "AB"[order],
            "category": "c",
            "image": str(i) if order else PICTURES[i],
            "l2-category": "d",
            "split": "dev",
        }
        | changes
        for i in range(N)
        for order in range(2)
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def lmms_eval() -> Iterator[None]:
    with isolated(offline=True):
        yield


@pytest.mark.usefixtures("lmms_eval")
@pytest.mark.parametrize("seed", [None, 0], ids=["direct", "reasoning"])
def test_the_converted_table_is_a_benchmark(tmp_path: Path, seed: int | None) -> None:
    from evaluation.fake_model import answer_all

    from interlace.evaluation.run.tasks import published_task

    table = write_table(tmp_path / "MMBench_DEV_EN_V11.tsv")
    result = CliRunner().invoke(main, [str(table), str(tmp_path / "b/MMBench-V1.1.parquet")])
    assert result.output.strip().endswith("MMBench-V1.1.parquet: 6 rows")
    validate(Evaluate(benchmarks=("MMBench-V1.1",), data=str(tmp_path / "b")))
    options = {"data": tmp_path / "b", "cache": tmp_path / "cache", "seed": seed}
    task = published_task(BENCHMARKS["MMBench-V1.1"], max_new_tokens=5, **options)
    model, answers = answer_all([task], lambda row, number: "The answer is B." if number else "A")
    scores = answers["MMBench-V1.1"]
    assert [answer.score for answer in scores] == [1, 1, 0, 1, 0, 1]
    assert [answer.question_id for answer in scores] == ["0", "0", "1", "1", "2", "2"]
    images = [prompt[0]["content"][0]["url"] for prompt in model.prompts]
    assert images[0].tobytes() == images[1].tobytes() != images[2].tobytes()
    assert "B. two" in scores[0].prompt and "C." not in scores[0].prompt


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"image": "77"}, "row 1: image = '77': no such row"),
        ({"image": "x" * 65}, "row 1: .*; download the table again"),
        ({"index": "one"}, "row 1: .*'one'; download the table again"),
    ],
    ids=str,
)
def test_a_damaged_table_is_named(tmp_path: Path, changes: dict[str, str], complaint: str) -> None:
    table = write_table(tmp_path / "t.tsv", **changes)
    with pytest.raises(InputError, match=rf"t\.tsv: {complaint}"):
        build_mmbench(table, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("a\tb\n1\t2\n")
    result = CliRunner().invoke(main, [str(tmp_path / "t.tsv"), str(tmp_path / "out.parquet")])
    assert result.exit_code == 2 and "not a table of MMBench: column index" in result.stderr
    with pytest.raises(InputError, match="no such file"):
        build_mmbench(tmp_path / "none.tsv", tmp_path / "out.parquet")
