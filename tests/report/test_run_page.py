"""The page of a run: what it says, and how a real browser shows it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import browser
import pyarrow as pa
import pytest
from PIL import Image
from report.report_cases import SOURCES, TTFT, UNSURE, illustration, make_run, plan
from sources_json import pinned_model

from interlace.evaluation.scores.answers import Answer
from interlace.plan.candidates import CANDIDATES
from interlace.report.facts.candidates import candidates_table
from interlace.report.figures.pipeline import pipeline_figure
from interlace.report.figures.retention import retention_figure
from interlace.report.page.changes import Comparison, comparison
from interlace.report.page.images import Drawing
from interlace.report.page.run import run_page

TIMES = {"ttft_speedup": 1.5, "ttft_speedup_low": 1.4, "ttft_speedup_high": 1.6, "ttft_ideal": 1.7,
         "ttft_dense_ms": 3.0, "ttft_tuned_ms": 2.0}  # fmt: skip
MEMORY = {"weights_dense_bytes": 3 * 2**20, "weights_tuned_bytes": 2**20}
ALL_TIMES: dict[str, Any] = TTFT | MEMORY | {
    "prefill_dense_ms": 20.0,
    "prefill_tuned_ms": 16.0,
    "benchmarks": {"AI2D": TIMES | {"tokens": 512.0}},
    "batches": {"4": TIMES},
}  # fmt: skip


def answers() -> Comparison:
    """One question that the pruned model gets wrong, with a prompt and an answer that are long."""
    prompt = f"What is {'x' * 300}?"
    by_model = {
        model: [Answer("000001-abcdef", "AI2D", "1", prompt, "12", answer, score)]
        for model, answer, score in (("dense", "12", 1.0), ("pruned", "w" * 200, 0.0))
    }
    image = Image.new("RGB", (900, 700), "red")
    return comparison(by_model, 1, lambda benchmark, rows: {1: [image]})


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    run = make_run(ttft=ALL_TIMES)
    retention_figure(run.evaluations, folder / "retention.png")
    pipeline_figure(folder / "pipeline.svg", illustration(), plan())
    drawings = [
        Drawing(folder / "retention.png", "Scores"),
        Drawing(folder / "pipeline.svg", "What happens", large=True),
    ]
    page = folder / "report.html"
    page.write_text(run_page(run, drawings, plan_digest="ab" * 32, answers=answers()))
    return page


@pytest.fixture(scope="module")
def text(report: Path) -> str:
    return report.read_text()


def test_nothing_comes_from_outside(text: str) -> None:
    assert "<script" not in text
    assert set(re.findall(r'(?:src|href)="(.{5})', text)) == {"data:"}


def test_images_have_words_and_tables_have_headings(text: str) -> None:
    assert len(re.findall(r'<img [^>]*alt="\w', text)) == text.count("<img ") == 3
    assert len(re.findall(r'<th scope="(?:col|row)"', text)) == len(re.findall("<th[ >]", text))
    assert '<html lang="en">' in text


def test_sources_parameters_scores_and_times_are_shown(text: str) -> None:
    assert f"{SOURCES.model.id}, revision 0c351dd" in text
    assert "revision c1a2b3d" in text and "240,000" in text
    assert f"sha256 {'ab' * 32}" in text
    assert "ratio: 0.25" in text
    for cell in ("90.0%", "1.25x (1.21x to 1.29x)", "512", "Batch size 4", "<td>3.0</td>"):
        assert cell in text
    assert text.count("1.50x (1.40x to 1.60x)") == 2


def test_each_layer_is_on_the_map_and_each_group_has_its_score(text: str) -> None:
    assert "".join(re.findall(r"<span>\d</span>(\w)", text)) == "PTDAFDTFF"
    assert "<td>5, 6</td><td>pair</td><td>S_2 = 0.9500</td><td>5</td>" in text


def test_plans_that_were_compared_are_a_table(text: str) -> None:
    cells = [
        {
            "plan": 1,
            "method": "interlace",
            "drop": "3 4 5 9",
            "loss_before": 2.5,
            "loss_after": 1.5,
        },
        {"plan": 2, "method": "search", "drop": "2", "loss_before": 2.75, "loss_after": 1.25},
    ]
    more = [
        {"tune": "", "error": 0.125, "chosen": False},
        {"tune": "", "error": 0.0, "chosen": True},
    ]
    rows = [a | b for a, b in zip(cells, more, strict=True)]
    candidates = candidates_table(pa.Table.from_pylist(rows, schema=CANDIDATES))
    page = run_page(make_run(), [], plan_digest="", candidates=candidates)
    assert "<td>3\u20135, 9</td><td>2.500</td><td>1.500</td><td>+0.250 \u00b1 0.125</td>" in page
    assert "<td>2.750</td><td>1.250</td><td>chosen</td>" in page
    assert "over the chosen" not in text


def test_an_uncertain_ratio_is_explained_once_and_its_interval_stands_in_its_place() -> None:
    unsure = {name: value for name, value in UNSURE.items() if name.startswith("ttft_")}
    everywhere = UNSURE | {
        "benchmarks": {"AI2D": unsure | {"tokens": 512.0}},
        "batches": {"4": unsure},
    }
    text = run_page(make_run(ttft=everywhere), [], plan_digest="")
    assert text.count("<td>uncertain: 1.02x to 1.43x</td>") == 3
    assert text.count("A speedup is uncertain where its 95% interval is wider than 10% of it") == 1
    assert "1.25x" not in text and "<dd>uncertain<small>1.02x to 1.43x; ideal 1.28x" in text
    assert "Comparison of answers" not in text
    assert "A speedup is uncertain" not in run_page(make_run(ttft=ALL_TIMES), [], plan_digest="")


def test_absolute_paths_stay_out() -> None:
    sources = SOURCES.model_copy(update={"model": pinned_model("/home/me/model")})
    assert "/home/me" not in run_page(make_run(sources=sources), [], plan_digest="")


def test_a_browser_shows_it_whole_and_in_silence(
    tab: browser.Page, report: Path, width: int
) -> None:
    tab.show(report, width)
    loaded = "[...document.images].map(i => i.complete && i.naturalWidth > 0)"
    assert tab.value(loaded) == [True] * 3
    assert (tab.requests(), tab.complaints()) == ([], [])
    assert tab.value("window.innerWidth") == width
    assert tab.value("document.documentElement.scrollWidth") == width


def test_what_is_wider_than_the_page_says_that_it_scrolls(
    tab: browser.Page, report: Path, width: int
) -> None:
    tab.show(report, width)
    scrolling = """[...document.querySelectorAll('.drawing')].map(figure => {
      const region = figure.querySelector('.wide'), hint = figure.querySelector('.hint');
      return [region.scrollWidth > region.clientWidth, getComputedStyle(hint).display != 'none'];
    })"""
    assert tab.value(scrolling) == [[width < 600] * 2] * 2
    captions = "[...document.querySelectorAll('figcaption, caption, h1')].map(e => e.offsetWidth)"
    assert max(tab.value(captions)) <= width
    edges = "getComputedStyle(document.querySelector('.wide')).backgroundAttachment"
    assert tab.value(edges) == "local, local, scroll, scroll"


def test_changed_answers_are_small_cards_side_by_side(
    tab: browser.Page, tmp_path: Path, width: int
) -> None:
    by_model = {
        model: [
            Answer(f"{row:06d}-a", f"set {row % 10}", "1", "Which digit?", "7", answer, score)
            for row in range(100)
        ]
        for model, answer, score in (("dense", "7", 1.0), ("pruned", "1", 0.0))
    }
    image = Image.new("RGB", (64, 64), "red")
    changed = comparison(by_model, 1, lambda _, rows: {row: [image] for row in rows}, 6)
    page = tmp_path / "report.html"
    page.write_text(run_page(make_run(), [], plan_digest="", answers=changed))
    assert "lost: 100 answers, 6 shown" in page.read_text()
    assert "interlace compare --show" in page.read_text()
    tab.show(page, width)
    tops = tab.value("[...document.querySelectorAll('.cards figure')].map(e => e.offsetTop)")
    heights = tab.value("[...document.querySelectorAll('.cards figure')].map(e => e.offsetHeight)")
    images = tab.value("[...document.querySelectorAll('.cards img')].map(e => e.offsetHeight)")
    assert images == [64] * 6  # as they are, never stretched
    assert len(tops) == 6 and len(set(tops)) == (2 if width > 600 else 6)
    assert max(heights) < 200


@pytest.mark.parametrize(
    ("scheme", "ground"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(18, 22, 28)")]
)
def test_text_can_be_read_in_light_and_dark(
    tab: browser.Page, report: Path, scheme: str, ground: str
) -> None:
    tab.show(report, 1280, scheme=scheme)
    assert tab.value("getComputedStyle(document.body).backgroundColor") == ground
    assert tab.value(browser.CONTRAST) >= 4.5  # WCAG AA
