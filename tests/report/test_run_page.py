"""The page of a run: what it says, and how a real browser shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import browser
import pytest
from PIL import Image
from report.report_cases import SOURCES, TTFT, card_run, illustration, plan, small_plan

from interlace.evaluation.scores.answers import Answer
from interlace.report.figures.pipeline import pipeline_figure
from interlace.report.figures.training import retention_figure
from interlace.report.page.changes import Comparison, comparison
from interlace.report.page.images import Drawing
from interlace.report.page.run import run_page

WIDTHS = {"desktop": 1280, "phone": 390}
PART = {"ttft_speedup": 1.5, "ttft_speedup_low": 1.4, "ttft_speedup_high": 1.6, "ttft_ideal": 1.7,
        "ttft_dense_ms": 3.0, "ttft_tuned_ms": 2.0}  # fmt: skip
MEASURED: dict[str, Any] = TTFT | {
    "prefill_dense_ms": 20.0,
    "prefill_tuned_ms": 16.0,
    "benchmarks": {"AI2D": PART | {"tokens": 512.0}},
    "batches": {"4": PART},
    **{f"{what}_{name}_bytes": 2**20 for what in ("weights", "cache", "peak")
       for name in ("dense", "tuned")},
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
    run = card_run(plan(), ttft=MEASURED)
    retention_figure(run.evaluations, folder / "retention.png")
    pipeline_figure(folder / "pipeline.svg", illustration(), plan())
    drawings = [
        Drawing(folder / "retention.png", "Scores"),
        Drawing(folder / "pipeline.svg", "What happens"),
    ]
    written = folder / "report.html"
    written.write_text(run_page(run, drawings, plan_digest="ab" * 32, answers=answers()))
    return written


class Elements(HTMLParser):
    """All start tags of a page, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def elements(report: Path) -> Elements:
    return Elements(report.read_text())


def test_nothing_comes_from_outside(elements: Elements) -> None:
    assert not elements.of("script")
    for _, attributes in elements.found:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")


def test_images_have_words_and_tables_have_headings(elements: Elements) -> None:
    assert len(elements.of("img")) == 3  # the figure without a file is left out
    assert all(image["alt"] for image in elements.of("img"))
    assert all(heading["scope"] in ("col", "row") for heading in elements.of("th"))
    assert elements.of("html") == [{"lang": "en"}]


def test_it_says_what_the_run_was_made_from(report: Path) -> None:
    text = report.read_text()
    assert f"{SOURCES['pinned_model']['id']}, revision 0c351dd" in text
    assert "revision c1a2b3d" in text
    assert f"sha256 {'ab' * 32}" in text
    assert "ratio: 0.25" in text


def test_it_shows_scores_and_speeds(report: Path) -> None:
    text = report.read_text()
    for cell in ("90.0%", "1.25x", "1.21x to 1.29x", "512", "Batch size 4"):
        assert cell in text


def test_every_layer_is_on_the_map() -> None:
    text = run_page(card_run(small_plan()), [], plan_digest="")
    letters = re.findall(r"<span>(\d)</span>(\w)", text)
    assert "".join(letter for _, letter in letters) == "PTDAFDTFF"


def test_a_ratio_that_is_too_unsure_is_explained() -> None:
    unsure = MEASURED | {"ttft_speedup": None, "ttft_speedup_refused": "its interval is wide"}
    text = run_page(card_run(plan(), ttft=unsure), [], plan_digest="")
    assert "Speedup uncertain for time to first token: its interval is wide." in text
    assert "1.25x" not in text


def test_absolute_paths_stay_out() -> None:
    sources = SOURCES | {"pinned_model": {"id": "/home/me/model", "files": {}}}
    text = run_page(card_run(plan(), sources=sources), [], plan_digest="")
    assert "/home/me" not in text


def test_text_is_no_markup() -> None:
    run = card_run(plan(), left_out={"<b>POPE": "it's & <i>"})
    assert "&lt;b&gt;POPE: it&#39;s &amp; &lt;i&gt;" in run_page(run, [], plan_digest="")


def test_without_answers_there_is_no_comparison() -> None:
    assert "Comparison of answers" not in run_page(card_run(plan()), [], plan_digest="")


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    program = browser.browser_program()
    if program is None:
        pytest.skip("no browser: install chromium, or name one in BROWSER_PROGRAM")
    with browser.open_page(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_a_browser_loads_it_whole_and_in_silence(
    tab: browser.Page, report: Path, width: int
) -> None:
    tab.show(report, width)
    loaded = "[...document.images].map(i => i.complete && i.naturalWidth > 0)"
    assert tab.value(loaded) == [True] * 3
    assert tab.requests() == []
    assert tab.complaints() == []


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_nothing_runs_off_the_screen(tab: browser.Page, report: Path, width: int) -> None:
    tab.show(report, width)
    assert tab.value("window.innerWidth") == width
    assert tab.value("document.documentElement.scrollWidth") == width


CONTRAST = """(() => {
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255).map(
    v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e)
    .backgroundColor; if (!/, 0\\)$|transparent/.test(c)) return c; } return 'rgb(255,255,255)'; };
  return Math.min(...[...document.querySelectorAll('p, td, th, dt, dd, li, small, caption, h1, h2')]
    .filter(e => e.textContent.trim()).map(e => { const pair = [light(getComputedStyle(e).color),
    light(ground(e))].sort((a, b) => b - a); return (pair[0] + .05) / (pair[1] + .05); }));
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(
    tab: browser.Page, report: Path, scheme: str, request: pytest.FixtureRequest
) -> None:
    tab.show(report, WIDTHS["desktop"], scheme=scheme)
    ground = tab.value("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 28)"}[scheme]
    assert tab.value(CONTRAST) >= 4.5  # WCAG AA
