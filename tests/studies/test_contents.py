"""The list of contents of a page leads to its sections."""

from __future__ import annotations

from studies.contents import anchor, headings, with_contents

PAGE = """# A page

Some words.

## A `name`, and more ([a paper](https://a.paper))

```bash
## no heading
```

### Below

## Last
"""
CONTENTS = """
Some words.

On this page:

- [A `name`, and more (a paper)](#a-name-and-more-a-paper)
- [Last](#last)

## A `name`
"""


def test_a_page_gets_a_list_of_its_sections() -> None:
    assert CONTENTS.strip() in with_contents(PAGE)
    assert [level for level, _ in headings(PAGE)] == [1, 2, 3, 2]


def test_a_list_is_renewed_in_its_place() -> None:
    page = with_contents(PAGE)
    assert with_contents(page) == page
    shorter = with_contents(page.replace("## Last\n", ""))
    assert "#last" not in shorter and shorter.count("#a-name-and-more-a-paper") == 1


def test_anchors_are_those_of_github() -> None:
    assert (
        anchor("INTERLACE ([arXiv 2511.19676](https://arxiv.org))") == "interlace-arxiv-251119676"
    )
    assert anchor("Without a network: `a_b`, 10%") == "without-a-network-a_b-10"
