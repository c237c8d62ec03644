"""The tables of docs/families.md: the rules of each family, and what became of its tiny models."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import family_models

from interlace.model.families import architecture, decoder_kind
from interlace.model.rules import DECODERS, FAMILIES, REFUSED

WITH_IMAGES, TEXT, REASONS = "with images", "text alone", "refused"
FURTHER = "tested further"  # in the tests of all parts, not only along the small path
NEW_TYPES = (
    "transformers opens types that nobody has looked at: {types}. For each, add a tiny model to"
    " tests/family_squares.py or tests/family_grids.py and a Family to interlace/model/families.py,"
    " or its true reason to REFUSED there; then run python tests/families --page docs/families.md"
)


def untried_types() -> set[str]:
    """The types of image-text-to-text models that are neither supported nor refused."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as TYPES,
    )

    return set(TYPES) - FAMILIES.keys() - REFUSED.keys()


def filled(page: str, results: Mapping[str, str]) -> str:
    """Write the tables between their marks; the names of families are those that stand there."""
    titles = dict(re.findall(r"^\| ([^|`]+) \| `([\w-]+)` \|", page, re.MULTILINE))
    by_type = {model_type: title for title, model_type in titles.items()}
    tables = {
        WITH_IMAGES: _table(results, by_type, takes_images=True),
        TEXT: _table(results, by_type, takes_images=False),
        REASONS: [f"- `{name}` {reason}." for name, reason in REFUSED.items()],
    }
    for mark, lines in tables.items():
        begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
        before, _, rest = page.partition(begin)
        page = before + begin + "\n".join(lines) + "\n" + end + rest.partition(end)[2]
    return page


def _table(
    results: Mapping[str, str], titles: Mapping[str, str], *, takes_images: bool
) -> list[str]:
    types = [name for name, family in FAMILIES.items() if family.takes_images is takes_images]
    rows = [row for name in types for row in _rows(name, titles.get(name, name), results)]
    head = "family | `model_type` | decoder | fields remapped besides `num_hidden_layers` | result"
    return [f"| {head} |", "|---|---|---|---|---|", *rows]


def _rows(model_type: str, title: str, results: Mapping[str, str]) -> Iterator[str]:
    """Yield a row for each set of decoders of a family that share their rules."""
    kinds_by_fields: dict[str, list[str]] = {}
    for kind in FAMILIES[model_type].decoders:
        kinds_by_fields.setdefault(_fields(model_type, kind), []).append(kind)
    first = f"{title} | `{model_type}`"
    for fields, kinds in kinds_by_fields.items():
        outcome = _outcome(model_type, kinds, results)
        yield f"| {first} | {_quoted(kinds)} | {fields} | {outcome} |"
        first = " | "


def _outcome(model_type: str, kinds: list[str], results: Mapping[str, str]) -> str:
    names = [
        name
        for name, tiny in family_models.ALL.items()
        if tiny.config["model_type"] == model_type and decoder_kind(tiny.config, "c") in kinds
    ]
    outcomes = sorted({results.get(name, "not tried") for name in names})
    further = [FURTHER] if family_models.TINY.keys() & {*names} else []
    return "; ".join(outcomes + further)


def _fields(model_type: str, kind: str) -> str:
    rules = DECODERS[kind]
    names = (*rules.lists, *rules.leading, *rules.indices, *rules.maps)
    fields = _quoted((*names, *FAMILIES[model_type].entries)) or "nothing"
    tiny = family_models.ALL[model_type].config
    fed = architecture(tiny, "c").deepstack_layers and not FAMILIES[model_type].entries
    return f"{fields}; layers that DeepStack features follow are protected" if fed else fields


def _quoted(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)
