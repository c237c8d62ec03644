"""The licence of a checkpoint, from its card or its licence file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from report.report_cases import make_run

from interlace.report.card.card import model_card
from interlace.report.facts.licence import inherited_metadata
from interlace.report.facts.run import Which

LICENSED = "---\nlicense: other\nlicense_name: own\nlanguage: [en]\ntags: [mine]\n---\n# Base\n"


@pytest.mark.parametrize(
    ("text", "metadata"),
    [
        (LICENSED, {"license": "other", "license_name": "own", "language": ["en"]}),
        ("# No metadata\n", {}),
        ("---\nlicense: [\n---\n", {}),
        (None, {}),
    ],
)
def test_the_licence_comes_from_the_base_model_s_card(
    tmp_path: Path, text: str | None, metadata: dict[str, Any]
) -> None:
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    assert inherited_metadata(tmp_path) == metadata
    data = ModelCard(model_card(make_run(inherited=metadata), "tuned")).data.to_dict()
    assert {name: data.get(name) for name in metadata} == metadata
    assert "mine" not in data["tags"]


@pytest.mark.parametrize(
    ("metadata", "row"),
    [
        ({"license": "apache-2.0"}, "| licence | the base model's, apache-2.0 |"),
        ({"license": "other", "license_name": "own"}, "| licence | the base model's, own |"),
        ({}, "| licence | the base model states none |"),
    ],
    ids=["stated", "of its own", "none"],
)
def test_a_card_says_the_licence_or_that_there_is_none(metadata: dict[str, Any], row: str) -> None:
    card = model_card(make_run(inherited=metadata), "tuned")
    assert row in card and ("license:" in card.split("---")[1]) == bool(metadata)


@pytest.mark.parametrize("which", ["pruned", "tuned"])
def test_a_card_can_be_followed_as_it_is(which: Which) -> None:
    card = model_card(make_run(), which)
    assert card.count(f'from_pretrained("artifacts/{which}"') == 2
    assert "MODEL" not in card and "git clone INTERLACE" not in card and "~/" not in card


APACHE = (Path(__file__).parents[2] / "LICENSE").read_text()
MIT = """MIT License

Copyright (c) 2024 Somebody

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({"LICENSE": APACHE}, "apache-2.0"),
        ({"licence.txt": MIT}, "mit"),
        ({"LICENSE": APACHE + "Commons Clause: you may not sell it."}, None),
        ({"LICENSE": APACHE, "LICENSE-MIT": MIT}, None),
        ({"LICENSE": "the model's own"}, None),
        ({"LICENSE": APACHE, "README.md": LICENSED}, "other"),
    ],
    ids=["apache", "mit", "apache with a clause", "two", "another", "a card says it"],
)
def test_a_licence_file_tells_the_licence_where_it_is_certain(
    tmp_path: Path, files: dict[str, str], licence: str | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert inherited_metadata(tmp_path).get("license") == licence
