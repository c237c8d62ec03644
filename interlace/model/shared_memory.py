"""Objects sent to another process, with the bytes of their tensors in memory that both share.

An object's tensors lie in one piece of memory, which is used again when they are gone. The receiver
asks its sender for nothing. Views of one tensor, as of a prompt and its answer, stay views.
"""

from __future__ import annotations

import io
import itertools
import mmap
import os
import pickle
import weakref
from collections import deque
from collections.abc import Iterable, Mapping
from math import prod
from multiprocessing import connection, reduction
from typing import Any, NamedTuple

import torch

AVAILABLE = hasattr(os, "memfd_create")
ALIGNMENT = 64  # bytes, of tensors
PIECE = 2**16  # bytes; pieces of memory are multiples of it


class _View(NamedTuple):
    """A tensor, as a view of bytes in shared memory.

    Attributes:
        begin: first byte of its storage.
        size: bytes of its storage.
        dtype, shape, stride, offset: of the tensor in its storage.
    """

    begin: int
    size: int
    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int

    def of(self, memory: memoryview) -> torch.Tensor:
        """Return the tensor in the memory."""
        if not prod(self.shape):
            return torch.empty(self.shape, dtype=self.dtype)
        count = self.size // self.dtype.itemsize
        flat = torch.frombuffer(memory, dtype=self.dtype, count=count, offset=self.begin)
        return flat.as_strided(self.shape, self.stride, self.offset)


class _Pickler(pickle.Pickler):
    """Pickles an object in which tensors are only referred to.

    Attributes:
        storages: of the tensors, each once, and where it begins in shared memory.
        size: bytes of shared memory that they take.
    """

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, pickle.HIGHEST_PROTOCOL)
        self.storages: dict[int, tuple[torch.UntypedStorage, int]] = {}
        self.size = 0

    def persistent_id(self, item: Any) -> _View | None:
        if not isinstance(item, torch.Tensor):
            return None
        storage = item.untyped_storage()
        if storage.data_ptr() not in self.storages:
            self.storages[storage.data_ptr()] = storage, self.size
            self.size += -(-storage.nbytes() // ALIGNMENT) * ALIGNMENT
        _, begin = self.storages[storage.data_ptr()]
        offset = int(item.storage_offset())
        return _View(begin, storage.nbytes(), item.dtype, item.shape, item.stride(), offset)


class _Unpickler(pickle.Unpickler):
    """Reads what `_Pickler` wrote."""

    def __init__(self, stream: io.BytesIO, memory: memoryview) -> None:
        super().__init__(stream)
        self.memory = memory

    def persistent_load(self, view: _View) -> torch.Tensor:
        return view.of(self.memory)


class _Message(NamedTuple):
    """What goes through the pipe.

    Attributes:
        pickled: the object without its tensors.
        size: bytes of its tensors.
        number: of the piece of memory that they lie in; None: it has none.
        new: bytes of that piece, if its file follows.
        dropped: numbers of pieces that are not used again.
    """

    pickled: bytes
    size: int
    number: int | None = None
    new: int | None = None
    dropped: tuple[int, ...] = ()


class Sender:
    """The end of a duplex pipe that sends objects.

    It keeps pieces of memory and uses them again, for setting them up takes longer than a copy.

    Args:
        pipe: to the `Receiver` in another process.
    """

    def __init__(self, pipe: connection.Connection) -> None:
        self.pipe = pipe
        self.pieces: dict[int, mmap.mmap] = {}
        self.free: set[int] = set()
        self.numbers = itertools.count()

    def send(self, item: Any) -> None:
        """Send any object that can be pickled; its tensors are on the CPU.

        Raises:
            OSError: the other process is gone.
        """
        stream = io.BytesIO()
        pickler = _Pickler(stream)
        pickler.dump(item)
        message = _Message(stream.getvalue(), pickler.size)
        if not pickler.size:
            self.pipe.send(message)
            return
        fitting = [n for n in self.free if len(self.pieces[n]) >= pickler.size]
        if fitting:
            number = min(fitting, key=lambda n: len(self.pieces[n]))
            self.free.remove(number)
            _fill(self.pieces[number], pickler.storages)
            self.pipe.send(message._replace(number=number))
            return
        dropped, number = tuple(self.free), next(self.numbers)  # those are too small
        for small in dropped:
            del self.pieces[small]
        self.free.clear()
        size = -(-pickler.size // PIECE) * PIECE
        file = os.memfd_create("interlace")
        try:
            os.ftruncate(file, size)
            self.pieces[number] = mmap.mmap(file, size)
            _fill(self.pieces[number], pickler.storages)
            self.pipe.send(message._replace(number=number, new=size, dropped=dropped))
            reduction.send_handle(self.pipe, file, None)
        finally:
            os.close(file)

    def reuse(self, numbers: Iterable[int]) -> None:
        """Use pieces again, which the receiver says are free."""
        self.free.update(numbers)


class Receiver:
    """The end of a duplex pipe that receives objects.

    Args:
        pipe: from the `Sender` in another process.
    """

    def __init__(self, pipe: connection.Connection) -> None:
        self.pipe = pipe
        self.pieces: dict[int, mmap.mmap] = {}
        self.free: deque[int] = deque()

    def receive(self) -> tuple[Any, int]:
        """Return the next object, and the bytes that it takes.

        Raises:
            EOFError: the other process is gone.
            OSError: it is gone, or there is no memory.
        """
        message: _Message = self.pipe.recv()
        for number in message.dropped:
            del self.pieces[number]
        memory = memoryview(b"")
        if message.number is not None:
            if message.new:
                file = reduction.recv_handle(self.pipe)
                try:
                    self.pieces[message.number] = mmap.mmap(file, message.new)
                finally:
                    os.close(file)
            memory = memoryview(self.pieces[message.number])
            # each tensor holds this view
            weakref.finalize(memory, self.free.append, message.number).atexit = False
        item = _Unpickler(io.BytesIO(message.pickled), memory).load()
        return item, len(message.pickled) + message.size

    def freed(self) -> list[int]:
        """Return the numbers of pieces whose tensors are gone, each once."""
        return [self.free.popleft() for _ in range(len(self.free))]


def _fill(piece: mmap.mmap, storages: Mapping[int, tuple[torch.UntypedStorage, int]]) -> None:
    """Copy storages to where they begin in a piece of memory."""
    for storage, begin in storages.values():
        if size := storage.nbytes():
            shared = torch.frombuffer(piece, dtype=torch.uint8, count=size, offset=begin)
            shared.copy_(torch.empty(0, dtype=torch.uint8).set_(storage))
