"""A file written from others has the bytes that the safetensors library would give it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from interlace.checkpoint import safetensors as safetensors_files
from interlace.checkpoint.safetensors import FLOATS, converted, stored_tensors, write_tensors
from interlace.errors import InputError

TYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.float8_e5m2, torch.float8_e4m3fn),
    *(torch.int16, torch.uint16, torch.float16, torch.bfloat16, torch.int32, torch.uint32),
    *(torch.float32, torch.complex64, torch.float64, torch.int64, torch.uint64),
]
SHAPES = [(), (0, 3), (1,), (3, 5), (2, 1, 7)]
FORMAT = {"format": "pt"}
TORCH = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
EVERY_HALF = np.arange(2**16, dtype=np.uint16).tobytes()  # each bit pattern of 16


def random(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    if dtype is torch.bool:
        return torch.rand(shape) < 0.5
    size = torch.empty(shape, dtype=dtype).element_size()
    count = torch.Size(shape).numel()
    return torch.randint(0, 255, (count * size,), dtype=torch.uint8).view(dtype).reshape(shape)


def rewritten(tensors: dict[str, torch.Tensor], folder: Path, files: int = 2) -> bytes:
    """Spread tensors over files, and write them into one."""
    stored = {}
    for number in range(files):
        shard = {name: tensors[name] for name in sorted(tensors)[number::files]}
        save_file(shard, folder / f"{number}.safetensors")
        stored |= stored_tensors(folder / f"{number}.safetensors")
    write_tensors(folder / "all.safetensors", stored)
    return (folder / "all.safetensors").read_bytes()


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
            lambda name: name != "__metadata__"
        ),
        st.tuples(st.sampled_from(SHAPES), st.sampled_from(TYPES)),
        min_size=1,
        max_size=6,
    )
)
@example({f"{n % 5}.{dtype}": (SHAPES[n % 5], dtype) for n, dtype in enumerate(TYPES)})
def test_names_and_types_are_written_as_the_library_does(tmp_path_factory: Any, kinds: Any) -> None:
    tensors = {name: random(shape, dtype) for name, (shape, dtype) in kinds.items()}
    folder = tmp_path_factory.mktemp("names")
    assert rewritten(tensors, folder) == save(tensors, metadata=FORMAT)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file with tensors larger than what is read at once, beside small ones."""
    tensors = {"a": torch.randn(3), "b": torch.randn(700_001), "c": torch.randn(2, 600_000)}
    save_file(tensors, tmp_path / "large.safetensors", metadata=FORMAT)
    return tmp_path / "large.safetensors"


def test_large_tensors_are_copied_whole(large: Path, tmp_path: Path) -> None:
    write_tensors(tmp_path / "copy.safetensors", stored_tensors(large))
    assert (tmp_path / "copy.safetensors").read_bytes() == large.read_bytes()


def fail_to_copy(monkeypatch: pytest.MonkeyPatch, number: int, after: int = 0) -> list[int]:
    """Let the system's copying fail after some calls of 1000 bytes; returns the sizes asked for."""
    copy, sizes = os.copy_file_range, []

    def failing(source: int, target: int, size: int, *rest: Any) -> int:
        sizes.append(size)
        if len(sizes) > after:
            raise OSError(number, os.strerror(number))
        return copy(source, target, 1000, *rest)

    monkeypatch.setattr(os, "copy_file_range", failing)
    return sizes


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("number", [errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_the_system_cannot_copy_bytes_are_read_and_written(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, after: int
) -> None:
    sizes = fail_to_copy(monkeypatch, number, after)
    copied: list[int] = []
    write_tensors(tmp_path / "copy.safetensors", stored_tensors(large), copied=copied.append)
    assert len(sizes) > after
    assert (tmp_path / "copy.safetensors").read_bytes() == large.read_bytes()
    assert sum(copied) == sum(tensor.size for tensor in stored_tensors(large).values())


def test_other_failures_of_copying_are_not_hidden(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_to_copy(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        write_tensors(tmp_path / "copy.safetensors", stored_tensors(large))


def test_a_file_that_shrinks_while_it_is_read_is_refused(large: Path, tmp_path: Path) -> None:
    stored = stored_tensors(large)
    os.truncate(large, large.stat().st_size - 4)
    with pytest.raises(InputError, match=r"large\.safetensors: not a whole safetensors file"):
        write_tensors(tmp_path / "copy.safetensors", stored)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_floating_point_numbers_are_converted_and_others_are_not(
    tmp_path: Path, dtype: str
) -> None:
    floats = {
        "a": torch.randn(1_100_000),  # more than is read at once
        "b": torch.randn(3, 2).bfloat16(),
        "c": torch.randn(4).half(),
        "d": torch.randn(5).double(),
    }
    others = {"e": torch.arange(6), "f": torch.randn(8).to(torch.float8_e4m3fn)}
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    save_file(floats | others, one)
    write_tensors(two, stored_tensors(one), dtype=dtype)
    expected = {name: value.float().to(TORCH[dtype]) for name, value in floats.items()}
    assert two.read_bytes() == save(expected | others, metadata=FORMAT)


@pytest.mark.parametrize(
    ("source", "target", "value", "said"),
    [
        ("F32", "F16", 7e4, "70000"),
        ("BF16", "F16", -1e5, "-99840"),
        ("F64", "F32", 1e39, r"1e\+39"),
        ("F32", "BF16", 3.4e38, r"3\.4e\+38"),
    ],
)
def test_a_number_that_is_too_large_is_named_with_its_tensor(
    tmp_path: Path, source: str, target: str, value: float, said: str
) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    save_file({"up": torch.tensor([1.0, value], dtype=TORCH[source])}, one)
    message = rf"one\.safetensors: up: {said} is too large for {target}; set"
    with pytest.raises(InputError, match=message):
        write_tensors(two, stored_tensors(one), dtype=target)


def test_memory_does_not_depend_on_the_size_of_a_tensor(tmp_path: Path) -> None:
    import tracemalloc

    save_file({"a": torch.zeros(2**24)}, tmp_path / "one.safetensors")  # 64 MiB
    stored = stored_tensors(tmp_path / "one.safetensors")
    for dtype, most in ((None, 2**20), ("BF16", 12 * safetensors_files._CHUNK)):
        tracemalloc.start()
        write_tensors(tmp_path / "two.safetensors", stored, dtype=dtype)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < most


def header(text: str, data: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text.encode() + data


def entry(dtype: str, size: int, begin: int, end: int) -> str:
    offsets = [begin, end]
    return json.dumps({"t": {"dtype": dtype, "shape": [size], "data_offsets": offsets}})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4,
        header("{"),
        header("[]"),
        header(entry("U8", 2, 0, 1), b"1"),
        header(entry("U9", 1, 0, 1), b"1"),
        header(entry("U8", 1, -1, 0)),
        header('{"t":{"dtype":"U8","shape":[1]}}', b"1"),
        (2**60).to_bytes(8, "little") + b"{}",
    ],
)
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"w\.safetensors: not a whole safetensors file") as caught:
        stored_tensors(tmp_path / "w.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("by", "said"), [(-1, "is cut short"), (1, "goes on after its tensors")])
def test_a_file_of_another_length_is_not_whole(tmp_path: Path, by: int, said: str) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(models.weights_file())
    size = file.stat().st_size
    os.truncate(file, size + by)
    with pytest.raises(InputError, match=f"the file {said}: {size + by} bytes, not {size}"):
        stored_tensors(file)


def by_torch(raw: bytes, source: str, target: str) -> torch.Tensor:
    numbers = torch.frombuffer(bytearray(raw), dtype=TORCH[source])
    return numbers.to(torch.float32).to(TORCH[target])


def ours(raw: bytes, source: str, target: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(converted(raw, source, target)), dtype=TORCH[target])


def alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """The same bits, but for which NaN."""
    same = one.view(torch.uint8).view(len(one), -1) == other.view(torch.uint8).view(len(one), -1)
    return bool((same.all(1) | (one.isnan() & other.isnan())).all())


@pytest.mark.parametrize("source", ["F16", "BF16"])
@pytest.mark.parametrize("target", ["BF16", "F32", "F64"])
def test_every_number_of_16_bits(source: str, target: str) -> None:
    assert alike(ours(EVERY_HALF, source, target), by_torch(EVERY_HALF, source, target))


@given(
    source=st.sampled_from(sorted(FLOATS)),
    target=st.sampled_from(sorted(FLOATS)),
    values=st.lists(st.floats(-65000, 65000, width=32), min_size=1, max_size=50),
)
@settings(max_examples=400)
def test_numbers_of_any_type(source: str, target: str, values: list[float]) -> None:
    raw = torch.tensor(values, dtype=TORCH[source]).view(torch.uint8).numpy().tobytes()
    assert alike(ours(raw, source, target), by_torch(raw, source, target))


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=200))
@example([0x3F808000, 0x3F818000, 0x3F808001])  # two ties, which go to even
@example([0x7F800000, 0xFF800000])  # infinities
def test_any_32_bits_as_bfloat16(patterns: list[int]) -> None:
    raw = np.array(patterns, np.uint32).tobytes()
    expected = by_torch(raw, "F32", "BF16")
    finite = torch.frombuffer(bytearray(raw), dtype=torch.float32).isfinite()
    if (finite & ~expected.isfinite()).any():
        with pytest.raises(OverflowError):
            converted(raw, "F32", "BF16")
    else:
        assert alike(ours(raw, "F32", "BF16"), expected)
