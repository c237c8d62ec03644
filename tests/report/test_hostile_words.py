"""Names and texts that mean something to what shows them: they are shown, and mean nothing."""

from __future__ import annotations

import html
import io
import re
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from drawn_rows import stored, text_row
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from PIL import Image
from report.report_cases import (
    DATASHEET,
    SCORES,
    TALLY,
    evaluations,
)
from report.test_write import make_workspace, report
from rich.console import Console

from interlace.cli import main
from interlace.evaluation.scores.answers import Answer, write_answers
from interlace.printable import one_line, printable
from interlace.report import write
from interlace.report.card.markdown import code, escaped, fenced
from interlace.report.facts.changes import changes
from interlace.report.terminal.changes import changes_text
from interlace.system.outputs import write_json

WORDS = (
    *(
        "[/b]",
        "[red]",
        "[link=javascript:alert(1)]",
        "[a](javascript:alert(1))",
        "a|b",
        "`|`",
        "```",
    ),
    *(
        "<script>alert(1)</script>",
        '"onmouseover="x',
        "$x$",
        "$",
        r"\(x\)",
        "{{ 7 * 7 }}",
        "{% x %}",
    ),
    *("%s", "\x1b[31m", "\x07", "\u202eabc", "\u05d0\u200f", "\U0001f469\u200d\U0001f467", "数学"),
    *(
        "_x",
        "__init__",
        "*a*",
        "# a",
        "- a",
        "1. a",
        "---",
        "&amp;",
        "~~a~~",
        ":smile:",
        "a\nb",
        "#",
    ),
    *(
        "x" * 300,
        "\\",
        '"artifacts/tuned"',
        "=1+1",
        "a:b",
        "</details>",
        "--",
        "!",
        "%(a)s",
        "a\x85b",
        "a\rb",
    ),
)

SUBSETS = [word for word in WORDS if "\x85" not in word]  # a line break in YAML 1.1


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose benchmarks, sources, questions, answers and reasons are `WORDS`."""
    root = make_workspace(tmp_path_factory.mktemp("hostile"))
    folder = root / "artifacts/evaluation"
    for model, result in evaluations().items():
        (score,) = {SCORES[model]["AI2D"]}
        one = result.scores["AI2D"].model_copy(update={"score": score})
        changed = result.model_copy(
            update={
                "scores": dict.fromkeys(WORDS, one),
                "skipped": {f"left {word}": f"because {word}" for word in WORDS},
                "versions": {"torch": "[/b] | `x`"},
                "device": "[/b] <b>",
            }
        )
        write_json(folder / f"{model}.json", changed.as_json())
        rows = [
            Answer(f"000000-{i}", word, str(i), f"ask {word}", f"true {word}", f"say {word}", right)
            for i, word in enumerate(WORDS)
            for right in [float(model != "pruned")]
        ]
        write_answers(rows, folder / f"answers/{model}.parquet")
    stored(root / "held.parquet", [text_row(0, word, images=1) for word in WORDS])
    sheet = replace(DATASHEET, by_source=dict.fromkeys(WORDS, TALLY), left_out={WORDS[0]: 3})
    write_json(root / "data/datasheet.json", asdict(sheet))
    tasks = [f'"{word.replace(chr(34), chr(34) * 2)}",math,0,0.9' for word in WORDS]
    text = "\n".join(["task,domain,layer,similarity", *tasks])
    (root / "metrics/probes.csv").write_text(text, encoding="utf-8", newline="")
    return root


@pytest.fixture(scope="module")
def folder(workspace: Path) -> Path:
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("error", UserWarning)
        patch.setattr(write, "MOST", len(WORDS))  # the page shows an answer to each
        data = {"id": "HuggingFaceM4/FineVision", "subsets": SUBSETS}
        return report(workspace, data=data, evaluate={"heldout": str(workspace / "held.parquet")})


def test_the_page_shows_each_word_and_runs_none(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "\x1b" not in page and "\u202e" not in page
    assert '"onmouseover' not in page and "49" not in re.findall(r">(\d+)<", page)
    shown = html.unescape(page)
    for word in WORDS:
        for text in (word, f"ask {word}", f"true {word}", f"say {word}", f"because {word}"):
            assert printable(text) in shown, repr(text)


def test_the_cards_keep_their_tables_fences_and_metadata(folder: Path) -> None:
    for which in ("pruned", "tuned"):
        card = ModelCard.load(folder / f"{which}.md")
        lines = card.text.splitlines()
        (start,) = (i for i, line in enumerate(lines) if line.startswith("| benchmark |"))
        rows = lines[start + 2 : start + 2 + len(WORDS)]
        columns = lines[start].count("|")
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {columns}
        assert lines[start + 2 + len(WORDS)].startswith("| **mean** |")
        results = card.data.eval_results
        assert results is not None and len(results) == len(WORDS)
        assert {result.dataset_name for result in results} == {one_line(word) for word in WORDS}
        fence = re.search(r"^(`{4,})yaml\n(.*?)^\1$", card.text, re.MULTILINE | re.DOTALL)
        assert fence
        subsets = yaml.safe_load(fence[2])["data"]["subsets"]
        assert [*map(printable, subsets)] == [*map(printable, SUBSETS)]
        outside = re.sub(r"^(`{3,}).*?^\1$", "", card.text, flags=re.MULTILINE | re.DOTALL)
        assert "<script" not in outside and "](" not in re.sub(r"\]\(https://", "", outside)
        assert "\x1b" not in card.text


@pytest.mark.parametrize("words", ["show", "compare --show 99"])
def test_a_terminal_gets_each_word_and_no_control_character(
    folder: Path, workspace: Path, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("COLUMNS", "500")
    result = CliRunner().invoke(main, words.split(), catch_exceptions=False)
    assert result.exit_code == 0
    assert all(letter == "\n" or printable(letter) == letter for letter in result.output)
    for word in WORDS:
        for line in printable(word).splitlines():
            assert line in result.output, repr(word)


def test_a_comparison_has_no_markup_on_any_console(workspace: Path) -> None:
    answers = {
        model: [Answer("000000-0", word, "0", word, word, word, right) for word in WORDS]
        for model, right in (("[/b]", 1.0), ("\x1b[31m", 0.0))
    }
    console = Console(width=600, record=True, file=io.StringIO())
    assert changes(answers)
    console.print(changes_text(answers, 99))
    text = console.export_text()
    assert "\x1b" not in text and "[link=javascript:alert(1)]" in text


def test_figures_take_any_name_without_a_warning(folder: Path, workspace: Path) -> None:
    for name in ("datasheet", "probes", "retention"):
        with Image.open(folder / f"{name}.png") as image:
            image.verify()


def test_a_pushed_card_is_whole_and_its_address_alone_is_filled_in(
    folder: Path, workspace: Path, pruned_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.chdir(workspace)
    shutil.copytree(pruned_dir, "artifacts/tuned")
    words = ["push", "me/small", "--to", "out", "--revision", 'a"b']
    assert CliRunner().invoke(main, words, catch_exceptions=False).exit_code == 0
    card = Path("out/README.md").read_text(encoding="utf-8")
    assert card.count('from_pretrained("me/small", revision="a\\"b"') == 2
    assert card.count('"artifacts/tuned"') > 0  # a subset's name
    result = CliRunner().invoke(main, ["push", 'a"b', "--to", "other"])
    assert result.exit_code == 2 and "not a hub id" in result.stderr


def read_markdown(text: str) -> tuple[str, set[str]]:
    """The text that a reader sees, and the tags around it."""
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    seen = html.unescape(re.sub("<[^>]*>", "\0", page)).replace("\0", "")
    return seen.strip("\n"), set(re.findall(r"<(\w+)", page))


@pytest.mark.parametrize(
    "word", [*WORDS, "_a_b__", "2) a", "1.5", "-1", "[1, 2](x)", "[x]: y", "a_b"]
)
def test_markdown_shows_a_word_as_it_is(word: str) -> None:
    line = " ".join(printable(word).splitlines())
    assert read_markdown(escaped(word)) == (line, {"p"})
    assert read_markdown(f"- {escaped(word)}")[0].strip() == line
    assert read_markdown(f"- {escaped(word)}")[1] <= {"ul", "li"}
    table = f"| {escaped(word)} | x |\n| --- | --- |\n| {code(word)} | {escaped(word)} |\n"
    seen, tags = read_markdown(table)
    assert [cell for cell in seen.splitlines() if cell] == [line, "x", line, line]
    assert tags == {"table", "thead", "tbody", "tr", "th", "td", "code"}
    assert read_markdown(fenced(word, "yaml")) == (printable(word), {"pre", "code"})


@pytest.mark.parametrize(
    "text", ["bar_compare", "99.7% [98.7, 100.7]", "3.8M (-18.8%)", "A&B", "a: b"]
)
def test_markdown_leaves_ordinary_text_alone(text: str) -> None:
    assert escaped(text) == text
    assert escaped(escaped("*")) == "\\*"
