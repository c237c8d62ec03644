"""The command that tries all families: prints what works, and writes the tables of a page."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import family_models
from families import page as pages
from families.small_path import try_path

from interlace.model.rules import FAMILIES, REFUSED
from interlace.printable import say


@click.command()
@click.option("--only", multiple=True, help="Only the tiny models of these names.")
@click.option("--page", type=click.Path(path_type=Path), help="Write the tables into this page.")
def main(only: tuple[str, ...], page: Path | None) -> None:
    """Take a tiny random model of every family along the small path; print what works."""
    if unknown := pages.untried_types():
        raise click.ClickException(pages.NEW_TYPES.format(types=", ".join(sorted(unknown))))
    results: dict[str, str] = {}
    for name in only or family_models.ALL:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = try_path(name, Path(folder))
        say(f"{name}: {results[name]}")
    works = {name.partition(",")[0] for name, result in results.items() if result == "works"}
    images = sum(FAMILIES[name].takes_images for name in works)
    say(f"{images} families with images and {len(works) - images} of text alone work")
    say(f"{len(REFUSED)} types are refused")
    if page is not None:
        page.write_text(pages.filled(page.read_text("utf-8"), results), "utf-8")
