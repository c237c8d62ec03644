"""`dvc plots show` draws its plots without a network."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import browser
import pytest

from interlace.project.layout import project_files
from interlace.project.profiles import read_profile

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a plot of a curve, made with the clone's configuration of DVC."""
    folder = tmp_path_factory.mktemp("plots")
    (folder / ".dvc").mkdir()
    for name in ("config", "plots.html"):
        (folder / ".dvc" / name).write_bytes((ROOT / ".dvc" / name).read_bytes())
    (folder / "loss.csv").write_text("step,loss\n1,2.5\n2,2.0\n3,1.5\n")
    (folder / "dvc.yaml").write_text("plots: [loss.csv: {x: step, y: loss, title: Loss}]\n")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "plots", "show"]):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "dvc_plots/index.html"


def test_the_page_of_plots_holds_its_scripts(plots: Path) -> None:
    text = plots.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=.?(https?:)?//", text)
    assert "vegaEmbed(" in text and not re.search(r"\{(scripts|plot_divs|refresh_tag)\}", text)
    assert "University of Washington Interactive Data Lab" in text


def test_a_browser_draws_the_plots_and_asks_for_nothing(
    tab: browser.Page, plots: Path, width: int
) -> None:
    tab.show(plots, width)
    end = time.monotonic() + browser.SECONDS
    while not tab.value("document.querySelectorAll('.vega-embed canvas').length"):
        assert time.monotonic() < end, tab.complaints()
    ink = """(() => { const c = document.querySelector('.vega-embed canvas');
      return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].some(
        (v, i) => i % 4 == 3 && v); })()"""
    assert tab.value(ink)
    assert tab.requests() == []
    assert tab.value("document.documentElement.scrollWidth") == width


def test_a_new_project_has_the_same_page() -> None:
    files = project_files("mine", read_profile("demo"), None, None)
    page, config = files[Path(".dvc/plots.html")], files[Path(".dvc/config")]
    assert isinstance(page, Path) and isinstance(config, bytes)
    assert page.read_bytes() == (ROOT / ".dvc/plots.html").read_bytes()
    assert config.decode() == (ROOT / ".dvc/config").read_text()
