"""YAML and JSON documents: read with one rule each, and one line for what cannot be read.

YAML is read as DVC reads it: version 1.2, where `010` is ten and `off` is text.
"""

from __future__ import annotations

import io
import json
import re
from itertools import accumulate
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from interlace.errors import InputError, MissingInputError

LONGEST = 300  # characters of a complaint
DEEPEST = 100  # brackets in each other
MOST_VALUES = 100_000  # of a YAML file, with its aliases written out
NO_PARAMS = "`interlace init` starts a project with one"


def read_yaml(path: Path, remedy: str = NO_PARAMS) -> Any:
    """Read a YAML file that a user wrote.

    Args:
        path: of the file.
        remedy: for a file that is not there.

    Raises:
        InputError: the file is missing or is not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {remedy}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable text file ({error})") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML with DVC's own settings.

    Args:
        text: one document.
        where: the text is from, for messages.

    Raises:
        InputError: it is not YAML, is nested too deeply, or its aliases stand for too much.
    """
    depth = accumulate((char in "[{") - (char in "]}") for char in text)
    try:
        if max(depth, default=0) > DEEPEST:  # the parser's time grows with the square of it
            raise RecursionError
        if "*" in text:  # aliases
            _check_size(YAML(typ="safe").compose(text), where)
        return YAML(typ="safe").load(text)
    except RecursionError:
        raise InputError(f"{where}: nested too deeply; write it with fewer levels") from None
    except (YAMLError, ValueError, LookupError) as error:  # the last two: an ill-formed !!int, date
        raise InputError(f"{where}: not valid YAML: {_complaint(error)}") from None


def _complaint(error: Exception) -> str:
    """Say in one line what a parser complains about, and where."""
    mark = getattr(error, "problem_mark", None)
    text = " ".join(str(getattr(error, "problem", None) or error).split())[:LONGEST]
    return f"{text} (line {mark.line + 1}, column {mark.column + 1})" if mark else text


def _check_size(root: Node | None, where: str) -> None:
    """Refuse aliases that hold themselves, or that stand for too many values."""
    sizes: dict[int, int | None] = {}  # None: being counted

    def size(node: Node) -> int:
        if id(node) in sizes:
            known_size = sizes[id(node)]
            if known_size is None:
                raise InputError(f"{where}: an alias holds itself; write its values out")
            return known_size
        sizes[id(node)] = None
        children: list[Node] = [] if isinstance(node, ScalarNode) else list(node.value)
        if isinstance(node, MappingNode):
            children = [child for pair in node.value for child in pair]
        total = 1 + sum(map(size, children))
        if total > MOST_VALUES:
            raise InputError(
                f"{where}: its aliases stand for more than {MOST_VALUES} values; write fewer"
            )
        sizes[id(node)] = total
        return total

    if root is not None:
        size(root)


def card_metadata(card: Path) -> dict[str, Any]:
    """Read the metadata at the top of a card on the hub; empty where there are none."""
    try:
        text = card.read_text(encoding="utf-8", errors="replace")
        block = re.match(r"\s*---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
        metadata = parse_yaml(block[1], str(card)) if block else None
    except (OSError, InputError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def as_yaml(value: Any) -> str:
    """Write plain values as a YAML document, keys in their order."""
    yaml, text = YAML(typ="safe"), io.StringIO()
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 1 << 20  # a value of many words stays on its line
    yaml.dump(value, text)
    return text.getvalue()


def read_json(path: Path) -> Any:
    """Read a JSON file that a stage wrote.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(_content(path))
    except RecursionError:
        raise MissingInputError(path, "nested too deeply") from None
    except ValueError as error:
        raise MissingInputError(path, f"not valid JSON: {error}") from None


def read_record(path: Path, kind: Any) -> Any:
    """Read and check a JSON file that a stage wrote.

    Args:
        path: of the file.
        kind: the type that it holds; numbers and text are not taken for each other.

    Raises:
        InputError: the file is missing, or holds something else.
    """
    try:
        return TypeAdapter(kind).validate_json(_content(path), strict=True)
    except ValidationError as error:
        raise MissingInputError.invalid(path, error) from None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise MissingInputError(path) from None
    except OSError as error:
        raise MissingInputError(path, f"not a readable file ({error.strerror})") from None
