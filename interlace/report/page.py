"""A web page in one file: no script, no outside asset, images as data URIs; fits a phone."""

from __future__ import annotations

import base64
import html
import io

from PIL import Image

from interlace.report.palette import HAIRLINE, INK, MODEL_COLOURS, MUTED

CSS = f"""
:root {{ color-scheme: light; }}
body {{ margin: 0 auto; max-width: 60rem; padding: 1rem; color: {INK}; background: #fff;
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.2rem; margin-top: 2rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }}
th, td {{ padding: .3rem .7rem .3rem 0; text-align: right; border-bottom: 1px solid {HAIRLINE};
  white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; }}
tr:last-child td {{ font-weight: bold; }}
figure {{ margin: 1rem 0; padding: .8rem; border: 1px solid {HAIRLINE}; border-radius: .5rem; }}
figure img {{ max-width: 100%; height: auto; display: block; margin: 0 0 .6rem; }}
pre {{ white-space: pre-wrap; font: inherit; margin: 0 0 .6rem; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .2rem .8rem; margin: 0; }}
dt {{ color: {MUTED}; }} dd {{ margin: 0; white-space: pre-wrap; }}
.mark {{ font-weight: bold; }}
"""
LONGEST_SIDE = 480  # pixels of an image on a page


def page(title: str, body: str) -> str:
    """A whole page around a body of HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        f"<h1>{escaped(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def escaped(text: str) -> str:
    """Text as HTML shows it."""
    return html.escape(text)


def table(headings: list[str], rows: list[list[str]]) -> str:
    """A table of text; the first column names the rows, the last row is the sum."""
    head = "".join(f"<th>{escaped(heading)}</th>" for heading in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>\n" for row in rows
    )
    return f'<div class="wide"><table>\n<tr>{head}</tr>\n{body}</table></div>\n'


def image(picture: Image.Image, alt: str = "") -> str:
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


def model_colour(name: str) -> str:
    """The colour of a model in every figure."""
    return MODEL_COLOURS.get(name, INK)
