"""Arrow types of columns: those that hold the same values, and a check of a file's columns.

Columns are taken by name and type. Encodings of a type (dictionaries, views, large and fixed sizes)
are the same type. A column of Arrow's null type holds missing values.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from interlace.errors import InputError

NUMBER = pa.int64()  # stands for all numbers
_TEXTS = (pa.large_string(), pa.string_view())
_BYTES = (pa.large_binary(), pa.binary_view())


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the same values without their encoding."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if _is_list(kind):
        return pa.list_(plain_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(item.name, plain_type(item.type)) for item in kind])
    if kind in _TEXTS:
        return pa.string()
    return pa.binary() if kind in _BYTES or pa.types.is_fixed_size_binary(kind) else kind


def _is_list(kind: pa.DataType) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_list(kind) for is_list in lists)  # Arrow 26 cannot cast views of lists


def plain_table(table: pa.Table) -> pa.Table:
    """Convert a table's columns to plain types, and drop its metadata."""
    schema = pa.schema([(item.name, plain_type(item.type)) for item in table.schema])
    return table if table.schema == schema else table.cast(schema)


def holds(kind: pa.DataType, expected: pa.DataType) -> bool:
    """Return true if a column of a type holds values of the expected plain type.

    A struct may have more fields than expected; an image's path may be missing.
    """
    kind = plain_type(kind)
    if pa.types.is_null(kind):
        return True
    if pa.types.is_list(expected):
        return pa.types.is_list(kind) and holds(kind.value_type, expected.value_type)
    if pa.types.is_struct(expected):
        return pa.types.is_struct(kind) and all(
            len(types := [item.type for item in kind if item.name == field.name]) == 1
            and holds(types[0], field.type)
            for field in expected
            if field.name != "path"
        )
    if expected == NUMBER:
        numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
        return any(is_number(kind) for is_number in numbers)
    return bool(kind == expected)


def check_column(schema: pa.Schema, name: str, types: Sequence[pa.DataType], where: str) -> None:
    """Check that a file holds a column once, in one of some plain types; without any, in all.

    Raises:
        InputError: names the file, the column, its type and the expected ones.
    """
    fields = [schema.field(number) for number in schema.get_all_field_indices(name)]
    if len(fields) > 1:
        raise InputError(
            f"{where}: column {name!r} is there {len(fields)} times; remove the others"
        )
    kind = fields[0].type
    if types and not any(holds(kind, expected) for expected in types):
        names = [str(expected).replace(str(NUMBER), "number") for expected in types]
        raise InputError(f"{where}: column {name!r} is {kind}, not {' or '.join(names)}")
