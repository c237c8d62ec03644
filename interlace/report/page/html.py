"""A web page in one file: no script, nothing from outside; fits a phone, light or dark."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

from PIL import Image

from interlace.report.figures.style import HAIRLINE, INK, MODEL_INKS

CSS = f"""
:root {{ color-scheme: light dark; --ink: {INK}; --muted: #565E6B; --line: {HAIRLINE};
  --ground: #fff; --raised: #F4F6F9; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #E5E9F0; --muted: #A3ADBB; --line: #3B4554; --ground: #12161C;
    --raised: #1B212A; }}
  .mark {{ color: inherit !important; }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 66rem; padding: 1rem; color: var(--ink);
  background: var(--ground); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.6rem; line-height: 1.2; }}
h2 {{ font-size: 1.25rem; margin: 2.2rem 0 .6rem; }}
h3 {{ font-size: 1rem; margin: 1.4rem 0 .4rem; }}
.note, small, caption, figcaption {{ color: var(--muted); }}
.wide {{ overflow-x: auto; margin-bottom: 1.2rem; }} figure .wide {{ margin: 0 0 .6rem; }}
.wide:focus-visible {{ outline: 2px solid; outline-offset: 2px; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }}
caption {{ text-align: left; padding-bottom: .3rem; max-width: calc(100vw - 2rem); }}
th, td {{ padding: .3rem 1rem .3rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }}
th:first-child, td:first-child {{ text-align: left; }}
tbody th {{ font-weight: normal; }}
.sum tr:last-child > * {{ font-weight: bold; }}
.text td {{ text-align: left; white-space: normal; min-width: 14rem; }}
.facts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .6rem; }}
.facts > div {{ background: var(--raised); border-radius: .5rem; padding: .7rem .9rem; }}
.facts dt {{ font-size: .85rem; }} .facts dd {{ font-size: 1.25rem; font-weight: bold; }}
.facts dd small {{ display: block; font-size: .8rem; font-weight: normal; }}
.layers {{ display: flex; flex-wrap: wrap; gap: .25rem; list-style: none; padding: 0;
  margin: .6rem 0; }}
.layers li {{ min-width: 2.1rem; padding: .2rem .3rem; border-radius: .3rem; text-align: center;
  font-weight: bold; line-height: 1.15; background: var(--role); color: var(--on); }}
.layers li span {{ display: block; font-size: .75rem; font-weight: normal; }}
.layers.legend li {{ padding: .2rem .6rem; font-weight: normal; }}
.hidden {{ position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }}
figure {{ margin: 1rem 0; padding: .8rem; border: 1px solid var(--line); border-radius: .5rem; }}
figure img {{ max-width: 100%; height: auto; display: block; margin: 0 0 .6rem; }}
.drawing img {{ width: 100%; min-width: 38rem; max-width: none; background: #fff; }}
pre {{ white-space: pre-wrap; font: inherit; margin: 0 0 .6rem; }}
details pre {{ font: .8rem/1.4 ui-monospace, monospace; }}
dl {{ display: grid; grid-template-columns: fit-content(40%) 1fr; gap: .2rem .8rem; margin: 0; }}
dt {{ color: var(--muted); }} dd {{ margin: 0; white-space: pre-wrap; }}
.mark {{ font-weight: bold; }}
@media (max-width: 40rem) {{
  table {{ font-size: .8rem; }} th, td {{ padding-right: .6rem; }}
}}
"""
LONGEST_SIDE = 480  # pixels of an image on a page


def page(title: str, body: str) -> str:
    """A whole page around a body of HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escaped(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def escaped(text: object) -> str:
    """Text as HTML shows it."""
    return html.escape(str(text))


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    kind: str = "sum",
) -> str:
    """A table of text; the first column names the rows.

    Args:
        headings: of the columns.
        rows: as long as `headings` each.
        caption: what the table shows.
        kind: sum: the last row is the sum; plain: it is not; text: columns hold sentences.
    """
    head = "".join(f'<th scope="col">{escaped(heading)}</th>' for heading in headings)
    body = "".join(
        f'<tr><th scope="row">{escaped(name)}</th>'
        + "".join(f"<td>{escaped(cell)}</td>" for cell in cells)
        + "</tr>\n"
        for name, *cells in rows
    )
    told = f"<caption>{escaped(caption)}</caption>\n" if caption else ""
    inner = (
        f'<table class="{kind}">\n{told}<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>'
        "</table>"
    )
    return scrolled(inner, caption or f"Table by {headings[0] or 'row'}")


def scrolled(inner: str, label: str) -> str:
    """What may be wider than the screen, in a box that scrolls, by keys too."""
    named = f'role="region" tabindex="0" aria-label="{escaped(label)}"'
    return f'<div class="wide" {named}>{inner}</div>\n'


def facts(rows: Sequence[tuple[str, str, str]]) -> str:
    """Names, their values in large, and a small line below each."""
    inner = "".join(
        f"<div><dt>{escaped(name)}</dt>"
        f"<dd>{escaped(value)}<small>{escaped(more)}</small></dd></div>\n"
        for name, value, more in rows
    )
    return f'<dl class="facts">\n{inner}</dl>\n'


def drawing(content: bytes, suffix: str, alt: str) -> str:
    """A figure, as it was written to a file, inside of the page.

    Args:
        content: of the file.
        suffix: .png or .svg.
        alt: what it shows.
    """
    kind = {".png": "image/png", ".svg": "image/svg+xml"}[suffix]
    data = base64.b64encode(content).decode()
    inner = scrolled(f'<img src="data:{kind};base64,{data}" alt="{escaped(alt)}">', alt)
    return f'<figure class="drawing">\n{inner}<figcaption>{escaped(alt)}</figcaption>\n</figure>\n'


def image(picture: Image.Image, alt: str = "the image that was asked about") -> str:
    """An image inside of the page, at most `LONGEST_SIDE` pixels long."""
    small = picture.copy()
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    small.save(file, "WEBP", quality=85)
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f'<img src="data:image/webp;base64,{data}" width="{small.width}" height="{small.height}"'
        f' alt="{escaped(alt)}">\n'
    )


def folded(summary: str, text: str) -> str:
    """Text to be opened."""
    return f"<details><summary>{escaped(summary)}</summary><pre>{escaped(text)}</pre></details>\n"


def model_ink(name: str) -> str:
    """The colour of a model's name: as in every figure, but dark enough for text."""
    return MODEL_INKS.get(name, INK)
