"""Safetensors files: what they hold, and writing one from the tensors of others.

The safetensors library writes from memory. Here bytes go from file to file instead, in the kernel
where the system can, so that memory does not depend on the size of a model, and a file has the
same bytes as the library would give it. PyTorch is not imported: that alone takes half a gigabyte.

A file is the length of its header (8 bytes, little-endian), a header in JSON, padded with spaces to
a multiple of 8 bytes, and the tensors one behind the other.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from interlace.errors import InputError

BITS = {
    **{"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8},
    **{"F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16},
    **{"F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64},
    "U64": 64,
}  # of one number; the library writes the tensors of a later type first
_RANKS = {dtype: rank for rank, dtype in enumerate(BITS)}
_CHUNK = 2**22  # bytes read at once where the system cannot copy by itself, bounds memory
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"  # a checkpoint's weights
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
        """How many numbers it holds."""
        return math.prod(self.shape)

    def size_as(self, dtype: str | None) -> int:
        """Bytes when floating-point numbers are written as `dtype`; none: as they are."""
        return self.count * BITS[self.dtype_as(dtype)] // 8

    def dtype_as(self, dtype: str | None) -> str:
        """The type it is written in: `dtype` for floating-point numbers, its own for others."""
        return dtype if dtype and self.dtype in FLOATS else self.dtype


def stored_tensors(path: Path) -> dict[str, Stored]:
    """The tensors in a safetensors file, by name; no weight is read.

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
        found = {name: _entry(path, 8 + length, entry) for name, entry in header.items()}
        end = max((tensor.begin + tensor.size for tensor in found.values()), default=8 + length)
        if end != whole_size:
            how = "is cut short" if whole_size < end else "goes on behind its tensors"
            raise ValueError(f"the file {how}: {whole_size} bytes, not {end}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); copy it again") from None
    return found


def _entry(path: Path, data: int, entry: dict[str, Any]) -> Stored:
    begin, end = entry["data_offsets"]
    tensor = Stored(path, entry["dtype"], tuple(entry["shape"]), data + begin, end - begin)
    if begin < 0 or tensor.size_as(None) != tensor.size:
        raise ValueError(f"{tensor.shape} of {tensor.dtype} do not take {tensor.size} bytes")
    return tensor


def checkpoint_tensors(folder: Path) -> dict[str, Stored]:
    """The tensors of a checkpoint by name; no weight is read.

    Raises:
        InputError: no safetensors weights, a damaged file, or an index that names files or tensors
            that are not there.
    """
    single, index = folder / SINGLE, folder / INDEX
    if not index.is_file():
        check_weights(str(folder), [path.name for path in folder.iterdir()])
        return stored_tensors(single)
    try:
        named: dict[str, str] = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{index}: not a readable index ({error}); copy it again") from None
    held: dict[str, dict[str, Stored]] = {}
    for file in sorted(set(named.values())):
        if not (folder / file).is_file():
            raise InputError(f"{index}: names {file}, which is not there; copy it again")
        held[file] = stored_tensors(folder / file)
    if absent := sorted(name for name, file in named.items() if name not in held[file]):
        raise InputError(
            f"{index}: names {len(absent)} tensors that are not where it says: {absent[0]} is not"
            f" in {named[absent[0]]}; copy both again"
        )
    return {name: held[file][name] for name, file in named.items()}


def tensor_files(folder: Path) -> dict[str, Path]:
    """Where each tensor of a checkpoint is stored.

    Raises:
        InputError: as `checkpoint_tensors` does.
    """
    return {name: tensor.path for name, tensor in checkpoint_tensors(folder).items()}


def check_weights(place: str, names: Iterable[str]) -> None:
    """Refuse a checkpoint without weights that can be read, by the names of its files.

    Args:
        place: where they are, for the message.
        names: of the files in the checkpoint's folder.

    Raises:
        InputError: says what is there instead, and the way out.
    """
    found = set(names)
    if found & {SINGLE, INDEX}:
        return
    pickled = sorted(name for name in found if name.endswith((".bin", ".pt", ".pth")))
    if shards := sorted(name for name in found if name.endswith(".safetensors")):
        why = f"{shards[0]} is there, but neither {SINGLE} nor {INDEX}, which says what is where"
        way = "; copy the missing file"
    elif pickled:
        why = f"no .safetensors weights: {pickled[0]} is pickled and is not read"
        way = "; load it where you trust it, and save_pretrained writes .safetensors"
    else:
        why, way = "no .safetensors weights", ": copy the checkpoint's .safetensors files there"
    raise InputError(f"{place}: {why}{way}")


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
        tensors: what it shall hold, by the name it shall have.
        dtype: the type to write floating-point numbers as, e.g. BF16; none: as they are.
        copied: told of every piece that is written, bytes.

    Raises:
        InputError: a number is too large for `dtype`; names the tensor.
    """
    order = sorted(tensors, key=lambda name: (-_RANKS[tensors[name].dtype_as(dtype)], name))
    sources: dict[Path, IO[bytes]] = {}
    try:
        with path.open("wb", buffering=0) as out:
            _write_all(out, _header({name: tensors[name] for name in order}, dtype))
            for name in order:
                tensor = tensors[name]
                if tensor.path not in sources:
                    sources[tensor.path] = tensor.path.open("rb", buffering=0)
                source, wanted = sources[tensor.path], tensor.dtype_as(dtype)
                if tensor.dtype == wanted:
                    _copy(source, out, tensor, copied)
                else:
                    _convert(source, out, tensor, wanted, f"{tensor.path}: {name}", copied)
    finally:
        for source in sources.values():
            source.close()


def _header(tensors: Mapping[str, Stored], dtype: str | None) -> bytes:
    """The length and the header of a file that holds these tensors, in this order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, tensor in tensors.items():
        end = begin + tensor.size_as(dtype)
        about = {"dtype": tensor.dtype_as(dtype), "shape": list(tensor.shape)}
        header[name] = about | {"data_offsets": [begin, end]}
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
            size = os.copy_file_range(
                source.fileno(), out.fileno(), tensor.size - done, tensor.begin + done
            )
        except OSError as error:
            if error.errno not in _NO_COPY:
                raise
            break
        if not size:
            break
        done += size
        copied(size)
    left = replace(tensor, begin=tensor.begin + done, size=tensor.size - done)
    for piece in _pieces(source, left):
        _write_all(out, piece)
        copied(len(piece))


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
    """A tensor's bytes a chunk at a time; each is overwritten by the next.

    Raises:
        InputError: the file ends before the tensor does.
    """
    buffer = memoryview(bytearray(min(_CHUNK, tensor.size)))
    source.seek(tensor.begin)
    left = tensor.size
    while left:
        size = _read(source, buffer[: min(_CHUNK, left)])
        if size < min(_CHUNK, left):
            raise InputError(f"{tensor.path}: not a whole safetensors file; copy it again")
        yield buffer[:size]
        left -= size


def _read(source: IO[bytes], buffer: memoryview) -> int:
    """Fill a buffer as far as the file goes; an unbuffered read may stop short of it."""
    done = 0
    while done < len(buffer) and (size := source.readinto(buffer[done:])):  # type: ignore[attr-defined]
        done += size
    return done


def _write_all(out: IO[bytes], data: bytes | memoryview) -> None:
    """Write everything; an unbuffered write may stop short of it."""
    view = memoryview(data)
    while view:
        view = view[out.write(view) :]


FLOATS = {"F16": np.float16, "BF16": np.uint16, "F32": np.float32, "F64": np.float64}  # as stored


def converted(raw: Any, source: str, target: str) -> bytes:
    """Numbers in another type; to fewer digits, to the nearest, ties to even.

    Args:
        raw: the bytes of the numbers, little-endian.
        source: their type, a key of `FLOATS`.
        target: the type wanted, a key of `FLOATS`.

    Raises:
        OverflowError: a finite number is too large for `target`.
    """
    numbers = np.frombuffer(raw, FLOATS[source])
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
        wide = _from_bfloat16(numbers) if source == "BF16" else numbers.astype(np.float32)
        narrow = _to_bfloat16(wide) if target == "BF16" else wide.astype(FLOATS[target])
    before = wide if source == "BF16" else numbers
    after = _from_bfloat16(narrow) if target == "BF16" else narrow
    lost = np.isfinite(before) & ~np.isfinite(after)
    if lost.any():
        raise OverflowError(f"{before[lost][0]:.6g} is too large for {target}")
    return narrow.tobytes()


def _from_bfloat16(bits: Any) -> Any:
    """The upper halves of float32 numbers -> the numbers."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _to_bfloat16(numbers: Any) -> Any:
    """float32 numbers -> the upper halves of the nearest ones whose lower half is zero."""
    bits = numbers.view(np.uint32)
    odd = (bits >> 16) & 1
    nearest = (bits + 0x7FFF + odd) >> 16
    return np.where(np.isnan(numbers), 0x7FC0, nearest).astype(np.uint16)
