from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import pytest
from click.testing import CliRunner
from models import picture
from PIL import Image
from report.report_cases import shown

from interlace.cli import main
from interlace.errors import InputError
from interlace.evaluation.scores.answers import Answer, answer_id, write_answers
from interlace.model.images import open_image
from interlace.report.facts.changes import changes, compared
from interlace.report.page.changes import comparison_page
from interlace.report.page.images import LONGEST_SIDE
from interlace.report.page.images import picture as shrunk
from interlace.report.terminal.changes import changes_text

SCORES = {
    "dense": [1, 1, 1, 0, 0, 1],
    "pruned": [1, 0, 0, 0, 0, 1],
    "tuned": [1, 0, 1, 1, 0, 0],
}


def made(scores: list[int], model: str) -> list[Answer]:
    return [
        Answer(answer_id(i, "q", "t"), "POPE", str(i), f"ask <{i}>", "t & u", f"{model} {i}", s)
        for i, s in enumerate(scores)
    ]


ANSWERS = {model: made(scores, model) for model, scores in SCORES.items()}


def test_changed_answers_are_lost_healed_or_gained() -> None:
    found = [(change.kind, change.first.question_id) for change in changes(ANSWERS)]
    assert found == [("lost", "1"), ("lost", "5"), ("healed", "2"), ("gained", "3")]
    undone = changes({"dense": made([0], "d"), "pruned": made([1], "p"), "tuned": made([0], "t")})
    assert [change.kind for change in undone] == ["undone"]
    assert list(changes(ANSWERS)[0].answers) == ["dense", "pruned", "tuned"]


def test_every_two_models_are_compared() -> None:
    assert list(compared(ANSWERS)) == list(combinations(ANSWERS, 2))
    with pytest.raises(InputError, match="at least two"):
        compared({"dense": ANSWERS["dense"]})


def test_the_terminal_shows_numbers_and_answers_in_80_columns() -> None:
    text = shown(changes_text(ANSWERS, limit=1))
    assert max(map(len, text.splitlines())) <= 80
    assert "ask <1>" in text
    assert "ask <5>" not in text  # one of each kind
    assert re.search(r"pruned +pruned 1 +\(0\)", text)
    assert "pruned retains 50.0% of dense" in text


def test_a_page_holds_everything_and_runs_nothing() -> None:
    def pictures(benchmark: str, places: object) -> dict[int, list[Image.Image]]:
        return {1: [open_image({"bytes": picture(0), "path": None})]}

    text = comparison_page(ANSWERS, 5, pictures)
    assert text.count('<img src="data:image/webp;base64,') == 1
    assert "ask &lt;1&gt;" in text and "t &amp; u" in text
    assert "lost: 2 answers" in text
    assert 'name="viewport"' in text
    for outside in ("<script", "http://", "https://", "<link", "@import", "url("):
        assert outside not in text


def test_an_image_on_a_page_is_small_and_keeps_its_shape() -> None:
    wide = shrunk(Image.new("RGB", (4000, 1000)))
    assert (wide.width, wide.height) == (LONGEST_SIDE, LONGEST_SIDE // 4)
    assert shrunk(Image.new("RGB", (20, 10))).width == 20


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for model, answers in ANSWERS.items():
        write_answers(answers, Path(f"artifacts/evaluation/answers/{model}.parquet"))
    Path("params.yaml").write_text("model: {id: a/b}\ndata: {id: c/d}\n")
    return tmp_path


def test_compare_takes_the_last_run_and_writes_a_page(workspace: Path) -> None:
    result = CliRunner().invoke(main, ["compare", "--html", "out.html"])
    assert result.exit_code == 0, result.output
    assert "tuned retains" in result.output
    assert "compare: wrote out.html" in result.output
    assert Path("out.html").read_text().startswith("<!doctype html>")


def test_compare_takes_files_of_any_two_runs(workspace: Path) -> None:
    folder = "artifacts/evaluation/answers"
    result = CliRunner().invoke(
        main, ["compare", f"old={folder}/tuned.parquet", f"{folder}/tuned.parquet"]
    )
    assert result.exit_code == 0
    assert "tuned retains 100.0% of old" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.parquet", "x=nowhere.parquet"], "nowhere.parquet: no such file"),
        (["a/x.parquet", "b/x.parquet"], "a second 'x'; write NAME=PATH"),
    ],
)
def test_compare_names_a_mistake(workspace: Path, words: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["compare", *words])
    assert result.exit_code == 2
    assert message in result.output


def texts(model: str, losses: list[float]) -> list[Answer]:
    """Long texts under next-token accuracy: nothing is generated."""
    return [
        Answer(
            f"{i:06d}-0", "manuals", str(i), f"start {i} " + "word " * 300, "rest " * 300, "",
            0.5 - 0.1 * loss, 4, 4 * loss, 4, (1, 2, 3, 4),
        )
        for i, loss in enumerate(losses)
    ]  # fmt: skip


TEXTS = {"dense": texts("dense", [1, 1, 1]), "tuned": texts("tuned", [1.5, 3.25, 0.5])}


def test_where_nothing_is_generated_the_greatest_rises_of_the_loss_are_shown() -> None:
    risen = changes(TEXTS)
    assert [(change.kind, change.first.question_id, change.rise) for change in risen] == [
        ("loss rose", "1", 2.25),
        ("loss rose", "0", 0.5),
    ]
    text = shown(changes_text(TEXTS, limit=1))
    assert "loss rose: manuals 000001-0" in text and "000000-0" not in text
    assert re.search(r"dense +1\.00 nats a token", text)
    assert re.search(r"tuned +3\.25 nats a token, \+2\.25", text)
    assert text.count("word") < 60 and max(map(len, text.splitlines())) <= 80


def test_a_page_shows_the_beginning_of_texts_and_no_answers() -> None:
    page = comparison_page(TEXTS, 2, lambda *_: {})
    assert "loss rose: 2 answers" in page and "start 1 word" in page
    assert "lost: " not in page and "gained: " not in page
    assert page.count("word") < 120


def test_an_answer_to_another_benchmark_is_judged_by_its_score() -> None:
    both = {model: TEXTS[model] + ANSWERS[model] for model in TEXTS}
    kinds = [change.kind for change in changes(both)]
    assert kinds == ["lost", "lost", "gained", "loss rose", "loss rose"]
