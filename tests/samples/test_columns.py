"""Columns are taken by name and type; encodings of a type are the same type."""

from __future__ import annotations

import pyarrow as pa
import pytest

from interlace.errors import InputError
from interlace.samples.columns import NUMBER, check_column, plain_type

TEXTS = pa.list_(pa.string())


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        (pa.dictionary(pa.int32(), pa.large_string()), pa.string()),
        (pa.large_list(pa.string_view()), TEXTS),
        (pa.list_(pa.string(), 2), TEXTS),
        (pa.json_(), pa.string()),
        (pa.binary(4), pa.binary()),
        (pa.struct([("a", pa.binary_view())]), pa.struct([("a", pa.binary())])),
    ],
    ids=str,
)
def test_an_encoding_is_the_type_of_its_values(kind: pa.DataType, plain: pa.DataType) -> None:
    assert plain_type(kind) == plain


@pytest.mark.parametrize("kind", [pa.null(), pa.uint8(), pa.float16(), pa.decimal128(3)], ids=str)
def test_all_numbers_and_missing_values_pass_for_a_number(kind: pa.DataType) -> None:
    check_column(pa.schema([("a", kind)]), "a", [NUMBER], "x")


def test_a_column_that_is_there_twice_is_named() -> None:
    twice = pa.schema([("a", pa.string()), ("a", pa.string())])
    with pytest.raises(InputError, match=r"^x: column 'a' is there 2 times"):
        check_column(twice, "a", [pa.string()], "x")
    fields = pa.schema([("a", pa.struct([("b", pa.string()), ("b", pa.string())]))])
    with pytest.raises(InputError, match=r"^x: column 'a' is struct"):
        check_column(fields, "a", [pa.struct([("b", pa.string())])], "x")
