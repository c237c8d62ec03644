"""Documents are read as DVC reads them, and refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import parse_yaml as dvc_parse_yaml

from interlace.errors import InputError, MissingInputError
from interlace.system.documents import as_yaml, card_metadata, parse_yaml, read_json, read_yaml

SOURCES = sorted(Path(__file__).parents[2].glob("[isdb]*/**/*.py"))
BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + chr(ord(name) - 1)] * 10)}]\n" for name in "bcdefgh"
)
MERGE_BOMB = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join(['*' + chr(ord(name) - 1)] * 10)}]}}\n"
    for name in "bcdefgh"
)


def refusal(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_yaml(text, "mine.yaml")
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix("mine.yaml: ")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("off", "off"),
        ("yes", "yes"),
        ("y", "y"),
        ("NO", "NO"),
        ("true", True),
        ("12345e7", 123450000000.0),
        ("3e-05", 3e-05),
        ("1e3", 1000.0),
        ("1:30", "1:30"),
        ("190:20:30", "190:20:30"),
        ("1_000", 1000),
        ("~", None),
        ("''", ""),
        ("'010'", "010"),
    ],
)
def test_a_value_means_what_it_means_to_dvc(text: str, value: Any) -> None:
    document = f"key: {text}\n"
    assert parse_yaml(document, "mine.yaml") == {"key": value} == dvc_parse_yaml(document, "")


@pytest.mark.parametrize(
    "text",
    [
        "a: &x {b: 1}\nc: {<<: *x, d: 2}\n",
        "\ufeffa: 1\n",
        "%YAML 1.1\n---\na: 010\n",
        "a: 2001-01-01\n",
        "a: |\n  two\n  lines\n",
        "a: !!str 5\n",
    ],
)
def test_a_document_is_read_as_dvc_reads_it(text: str) -> None:
    assert parse_yaml(text, "mine.yaml") == dvc_parse_yaml(text, "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\na: 2\n", "found duplicate key"),
        ("a: 1\n---\nb: 2\n", "found another document"),
        ("a:\n\tb: 1\n", r"found character '\t'"),
        ("a: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
        ("a: !mine 1\n", "could not determine a constructor"),
        ("a: !!int many\n", "invalid literal"),
        ("a: !!int ''\n", "index out of range"),
        ("a: !!bool maybe\n", "maybe"),
        ("a: 2001-99-99\n", "month must be in 1..12"),
        ("a: *x\n", "found undefined alias"),
        ("a: \0\n", "unacceptable character"),
        ("a: " + "9" * 5000, "Exceeds the limit"),
        ("[" * 50_000, "nested too deeply"),
        ("a: " + "{a: " * 3000 + "1" + "}" * 3000, "nested too deeply"),
        ("- " * 5000 + "x", "nested too deeply"),
        ("&a [*a]", "an alias holds itself"),
        ("a: &a {b: {c: *a}}", "an alias holds itself"),
        (BOMB, "its aliases stand for more than 100000 values"),
        (MERGE_BOMB, "its aliases stand for more than 100000 values"),
    ],
    ids=lambda text: text[:24] if isinstance(text, str) else None,
)
def test_what_is_no_plain_document_is_refused_in_one_line(text: str, reason: str) -> None:
    assert reason in refusal(text)


def test_written_yaml_is_read_back_in_order() -> None:
    values = {"b": "off", "a": ["010", "1e3", 1e-05, None, True], "c": {}, "d": "é\n", "e": "no"}
    text = as_yaml(values)
    assert parse_yaml(text, "") == dvc_parse_yaml(text, "") == values
    assert list(parse_yaml(text, "")) == list(values)


def test_a_long_value_stays_on_its_line() -> None:
    assert as_yaml({"id": "/a folder" * 40}).count("\n") == 1


def test_no_module_has_a_yaml_reader_of_its_own() -> None:
    readers = [path for path in SOURCES if "import yaml" in path.read_text(encoding="utf-8")]
    assert len(SOURCES) > 200
    assert not readers


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not valid JSON: Expecting value"),
        (b'{"a": 1', "not valid JSON: Expecting ',' delimiter"),
        (b"\xff\xfe\x00", "not valid JSON: "),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON: Exceeds the limit"),
    ],
    ids=["empty", "truncated", "no text", "deep", "long number"],
)
def test_what_is_no_json_is_refused_by_the_name_of_the_file(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(MissingInputError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: {reason}")
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_document(tmp_path: Path) -> None:
    for read in read_json, read_yaml:
        with pytest.raises(InputError, match="not a readable"):
            read(tmp_path)


@pytest.mark.parametrize(
    ("text", "metadata"),
    [
        ("---\nlanguage: no\nlicense: mit\n---\n# Card\n", {"language": "no", "license": "mit"}),
        ("---\r\nlicense: mit\r\n---\r\n", {"license": "mit"}),
        ("# Card\n---\nlicense: mit\n---\n", {}),
        ("---\n[\n---\n", {}),
        ("---\n- mit\n---\n", {}),
        (f"---\n{BOMB}---\n", {}),
    ],
)
def test_the_metadata_of_a_card_are_read_or_empty(
    tmp_path: Path, text: str, metadata: dict[str, str]
) -> None:
    card = tmp_path / "README.md"
    card.write_bytes(text.encode())
    assert card_metadata(card) == metadata
    assert card_metadata(tmp_path / "none.md") == {}
