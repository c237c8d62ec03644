"""Every family goes along the small path, and every type of transformers has been looked at."""

from __future__ import annotations

import re
from pathlib import Path

import family_models
import pytest
from families import page
from families.small_path import try_path

from interlace.model.rules import FAMILIES, REFUSED


@pytest.mark.parametrize("name", family_models.NEWER | family_models.TINY)
def test_a_tiny_model_goes_along_the_small_path(name: str, tmp_path: Path) -> None:
    if not family_models.is_known(name):
        pytest.skip("the installed transformers is older than this family")
    assert try_path(name, tmp_path) == "works"


def test_every_type_of_transformers_is_supported_or_refused() -> None:
    unknown = page.untried_types()
    assert not unknown, page.NEW_TYPES.format(types=", ".join(sorted(unknown)))


def test_forty_families_with_images_are_supported() -> None:
    assert sum(family.takes_images for family in FAMILIES.values()) >= 40
    assert not FAMILIES.keys() & REFUSED.keys()


def test_the_page_holds_what_the_command_writes() -> None:
    text = (Path(__file__).parents[2] / "docs/families.md").read_text()
    assert page.filled(text, dict.fromkeys(family_models.ALL, "works")) == text


def test_new_types_are_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(REFUSED, "evolla")
    monkeypatch.delitem(FAMILIES, "aria")
    assert page.untried_types() == {"aria", "evolla"}
    line = page.NEW_TYPES.format(types="aria, evolla")
    assert re.search(r"aria, evolla\. For each, add a tiny model", line)
