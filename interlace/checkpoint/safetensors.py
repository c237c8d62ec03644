"""Safetensors files: what they hold, and writing one from the tensors of others.

The safetensors library writes from memory. Here bytes go from file to file, in the kernel where
possible, so that memory does not depend on the size of a model. The bytes are those that the
library would write. PyTorch, which alone takes half a gigabyte, is not imported.

A file holds the length of its header (8 bytes, little-endian), the header in JSON, padded with
spaces to a multiple of 8 bytes, and the tensors one after the other.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from interlace.errors import InputError
from interlace.model.files import INDEX, SINGLE, read_index, weight_files
from interlace.system.outputs import written_while_growing

BITS = {
    **{"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8},
    **{"F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16},
    **{"F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64},
    "U64": 64,
}  # of one number; the library writes the tensors of a later type first
FLOATS = {"F16": np.float16, "BF16": np.uint16, "F32": np.float32, "F64": np.float64}  # as stored
WRITABLE = {*FLOATS, "BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64"}  # not packed
_RANKS = {dtype: rank for rank, dtype in enumerate(BITS)}
_CHUNK = 2**22  # bytes read at once where the system cannot copy by itself, bounds memory
_PIECE = 2**26  # bytes that the system copies in one call
_NO_COPY = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF)
_WORTH_KERNEL = 2**16  # bytes; below, reading and writing costs no more


@dataclass(frozen=True)
class Stored:
    """A tensor in a safetensors file.

    Attributes:
        path: the file.
        dtype: as the format names it, e.g. BF16.
        shape: numbers along each axis.
        begin: where its bytes begin in the file, bytes.
        size: bytes.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int

    @property
    def count(self) -> int:
        """The count of its numbers."""
        return math.prod(self.shape)

    def size_as(self, dtype: str | None) -> int:
        """Return the bytes with floating-point numbers stored as `dtype`; `None`: unchanged."""
        return self.count * BITS[self.dtype_as(dtype)] // 8

    def dtype_as(self, dtype: str | None) -> str:
        """Return the type to write: `dtype` for floating-point numbers, its own for others."""
        return dtype if dtype and self.dtype in FLOATS else self.dtype


def stored_tensors(path: Path) -> dict[str, Stored]:
    """Return the tensors of a safetensors file by name, from its header.

    Raises:
        InputError: the file is damaged, cut short, or longer than it says.
    """
    try:
        whole_size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > whole_size:
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors = {name: _entry(path, 8 + length, entry) for name, entry in header.items()}
        end = max((tensor.begin + tensor.size for tensor in tensors.values()), default=8 + length)
        if end != whole_size:
            fault = "is cut short" if whole_size < end else "goes on after its tensors"
            raise ValueError(f"the file {fault}: {whole_size} bytes, not {end}")
        with safe_open(path, framework="np"):  # the library's own checks: gaps, order, metadata
            pass
    except (
        SafetensorError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); copy it again") from None
    return tensors


def _entry(path: Path, data: int, entry: dict[str, Any]) -> Stored:
    begin, end = entry["data_offsets"]
    tensor = Stored(path, entry["dtype"], tuple(entry["shape"]), data + begin, end - begin)
    if begin < 0 or tensor.size_as(None) != tensor.size:
        raise ValueError(f"{tensor.shape} of {tensor.dtype} do not take {tensor.size} bytes")
    return tensor


def checkpoint_tensors(folder: Path) -> dict[str, Stored]:
    """Return the tensors of a checkpoint by name, from the headers of the files.

    Raises:
        InputError: as `weight_files` does; a damaged file; or a tensor that is not where the index
            says, or lies in two files.
    """
    tensors: dict[str, Stored] = {}
    files = weight_files(folder)
    for file in files:
        stored = stored_tensors(file)
        if twice := tensors.keys() & stored.keys():
            name = min(twice)
            raise InputError(
                f"{file}: holds {name}, and {tensors[name].path.name} does too; copy both again"
            )
        tensors |= stored
    if files == [folder / SINGLE]:
        return tensors
    weight_map = read_index(folder)
    absent = [
        name
        for name, file in weight_map.items()
        if name not in tensors or tensors[name].path != folder / file
    ]
    if absent:
        name = min(absent)
        raise InputError(
            f"{folder / INDEX}: names {len(absent)} tensors that are not where it says: {name} is"
            f" not in {weight_map[name]}; copy both again"
        )
    return tensors


def tensor_files(folder: Path) -> dict[str, Path]:
    """Return the file of each tensor of a checkpoint.

    Raises:
        InputError: as `checkpoint_tensors` does.
    """
    return {name: tensor.path for name, tensor in checkpoint_tensors(folder).items()}


def write_tensors(
    path: Path,
    tensors: Mapping[str, Stored],
    *,
    dtype: str | None = None,
    copied: Callable[[int], object] = lambda size: None,
) -> None:
    """Write a safetensors file from tensors that lie in others.

    Args:
        path: the file to write.
        tensors: the tensors to write, by their new names.
        dtype: the type of written floating-point numbers, e.g. BF16; `None`: unchanged.
        copied: called with the size of every written piece, bytes.

    Raises:
        InputError: a number is too large for `dtype`; names the tensor.
    """
    order = sorted(tensors, key=lambda name: (-_RANKS[tensors[name].dtype_as(dtype)], name))
    sources: dict[Path, IO[bytes]] = {}
    try:
        with path.open("wb", buffering=0) as out, written_while_growing(out) as grown:
            _write_all(out, _header({name: tensors[name] for name in order}, dtype))

            def progress(size: int) -> None:
                grown(size)
                copied(size)

            for name in order:
                tensor = tensors[name]
                if tensor.path not in sources:
                    sources[tensor.path] = tensor.path.open("rb", buffering=0)
                source, new_dtype = sources[tensor.path], tensor.dtype_as(dtype)
                if tensor.dtype == new_dtype:
                    _copy(source, out, tensor, progress)
                else:
                    _convert(source, out, tensor, new_dtype, f"{tensor.path}: {name}", progress)
    finally:
        for source in sources.values():
            source.close()


def _header(tensors: Mapping[str, Stored], dtype: str | None) -> bytes:
    """Return the length and the header of a file with these tensors, in this order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, tensor in tensors.items():
        end = begin + tensor.size_as(dtype)
        header[name] = {
            "dtype": tensor.dtype_as(dtype),
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _copy(
    source: IO[bytes], out: IO[bytes], tensor: Stored, copied: Callable[[int], object]
) -> None:
    """Append a tensor's bytes as they are."""
    done = 0
    while done < tensor.size and tensor.size > _WORTH_KERNEL and hasattr(os, "copy_file_range"):
        try:
            piece = min(_PIECE, tensor.size - done)
            size = os.copy_file_range(source.fileno(), out.fileno(), piece, tensor.begin + done)
        except OSError as error:
            if error.errno not in _NO_COPY:
                raise
            break
        if not size:
            break
        done += size
        copied(size)
    remainder = replace(tensor, begin=tensor.begin + done, size=tensor.size - done)
    for chunk in _pieces(source, remainder):
        _write_all(out, chunk)
        copied(len(chunk))


def _convert(
    source: IO[bytes],
    out: IO[bytes],
    tensor: Stored,
    dtype: str,
    name: str,
    copied: Callable[[int], object],
) -> None:
    """Append a tensor's numbers in another floating-point type."""
    for piece in _pieces(source, tensor):
        try:
            numbers = converted(piece, tensor.dtype, dtype)
        except OverflowError as error:
            raise InputError(f"{name}: {error}; set export.dtype to bfloat16 or keep") from None
        _write_all(out, numbers)
        copied(len(numbers))


def _pieces(source: IO[bytes], tensor: Stored) -> Iterator[memoryview]:
    """Yield a tensor's bytes chunk by chunk; each chunk is overwritten by the next.

    Raises:
        InputError: the file ends before the tensor does.
    """
    buffer = memoryview(bytearray(min(_CHUNK, tensor.size)))
    source.seek(tensor.begin)
    remaining = tensor.size
    while remaining:
        size = _read(source, buffer[: min(_CHUNK, remaining)])
        if size < min(_CHUNK, remaining):
            raise InputError(f"{tensor.path}: not a whole safetensors file; copy it again")
        yield buffer[:size]
        remaining -= size


def _read(source: IO[bytes], buffer: memoryview) -> int:
    """Fill a buffer as far as the file reaches; one unbuffered read may return less."""
    done = 0
    while done < len(buffer) and (size := source.readinto(buffer[done:])):  # type: ignore[attr-defined]
        done += size
    return done


def _write_all(out: IO[bytes], data: bytes | memoryview) -> None:
    """Write all data; one unbuffered write may write less."""
    view = memoryview(data)
    while view:
        view = view[out.write(view) :]


def converted(raw: Any, source: str, target: str) -> bytes:
    """Convert numbers to another type, rounded to the nearest, ties to even.

    Args:
        raw: the bytes of the numbers, little-endian.
        source: their type, a key of `FLOATS`.
        target: the new type, a key of `FLOATS`.

    Raises:
        OverflowError: a finite number is too large for `target`.
    """
    numbers = np.frombuffer(raw, FLOATS[source])
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
        wide = _from_bfloat16(numbers) if source == "BF16" else numbers.astype(np.float32)
        narrow = _to_bfloat16(wide) if target == "BF16" else wide.astype(FLOATS[target])
    exact = wide if source == "BF16" else numbers
    rounded = _from_bfloat16(narrow) if target == "BF16" else narrow
    overflow = np.isfinite(exact) & ~np.isfinite(rounded)
    if overflow.any():
        raise OverflowError(f"{exact[overflow][0]:.6g} is too large for {target}")
    return narrow.tobytes()


def _from_bfloat16(bits: Any) -> Any:
    """Extend the upper halves of float32 numbers to the numbers."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _to_bfloat16(numbers: Any) -> Any:
    """Round float32 numbers to the nearest whose lower half is zero; return the upper halves."""
    bits = numbers.view(np.uint32)
    odd = (bits >> 16) & 1
    nearest = (bits + 0x7FFF + odd) >> 16
    return np.where(np.isnan(numbers), 0x7FC0, nearest).astype(np.uint16)
