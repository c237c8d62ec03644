"""Objects sent to another process with their tensors in shared memory."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from interlace.model.shared_memory import Receiver, Sender

ITEMS = [
    "no tensor",
    torch.arange(7),
    {"a": torch.randn(3, 5).bfloat16(), "b": [torch.tensor(2.5), (torch.tensor([True]), 1)]},
    torch.empty(0, 4, dtype=torch.int32),
    torch.arange(12).reshape(3, 4).T,
    torch.ones(2, 3, requires_grad=True),
    torch.randn(3, 2**18, dtype=torch.float64),
]


@contextmanager
def sent_from(items: Sequence[Any]) -> Iterator[Callable[[int], Any]]:
    """Yield what lets another process send an item by its number, and returns what arrives."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def serve() -> None:
        sender = Sender(theirs)
        while order := theirs.recv():
            number, freed = order
            sender.reuse(freed)
            sender.send(items[number])

    process = context.Process(target=serve)
    process.start()
    receiver = Receiver(ours)

    def sent(number: int) -> Any:
        ours.send((number, receiver.freed()))
        item, size = receiver.receive()
        assert size >= getattr(items[number], "nbytes", 0)
        return item

    yield sent
    ours.send(None)
    process.join()
    assert process.exitcode == 0


def mapped() -> int:
    """Return the number of pieces of memory that this process shares."""
    with open("/proc/self/maps", encoding="ascii") as lines:
        return sum("memfd:interlace" in line for line in lines)


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        assert_same([*one.values()], [*other.values()])
    elif isinstance(one, list | tuple):
        assert type(one) is type(other) and len(one) == len(other)
        for each, counterpart in zip(one, other, strict=True):
            assert_same(each, counterpart)
    else:
        assert one == other


def test_objects_arrive_as_they_were_sent() -> None:
    with sent_from(ITEMS) as sent:
        for number in [*range(len(ITEMS)), *reversed(range(len(ITEMS)))]:
            assert_same(sent(number), ITEMS[number])


def test_tensors_stay_when_their_sender_and_the_others_are_gone() -> None:
    with sent_from([{"first": torch.zeros(9), "second": torch.full((1000,), 3.0)}]) as sent:
        whole = sent(0)
    second = whole.pop("second")[10:]
    del whole
    second += 1
    assert second.tolist() == [4.0] * 990


def test_memory_is_used_again_when_no_tensor_of_it_is_left() -> None:
    with sent_from([torch.full((10_000,), float(number)) for number in range(9)]) as sent:
        before = mapped()
        kept = sent(0)
        for number in range(1, 9):
            assert torch.equal(sent(number), torch.full((10_000,), float(number)))
        assert mapped() == before + 2
        assert torch.equal(kept, torch.zeros(10_000))
        part = sent(3)[5:7]
        sent(4)
        assert part.tolist() == [3.0, 3.0]
        assert mapped() == before + 3


def test_pieces_that_are_too_small_give_way() -> None:
    files = len(os.listdir("/proc/self/fd"))
    with sent_from([torch.zeros(10 ** (3 + number // 2)) for number in range(8)]) as sent:
        before = mapped()
        for number in range(8):
            assert len(sent(number)) == 10 ** (3 + number // 2)
            assert mapped() == before + 1
        sent(0)
        assert mapped() == before + 1
    del sent
    assert mapped() == before
    assert len(os.listdir("/proc/self/fd")) == files


def test_views_of_one_tensor_are_sent_once_and_stay_views() -> None:
    pixels = torch.randn(1000)
    items = [[pixels, pixels[10:20], pixels.reshape(10, 100).T]]
    with sent_from(items) as sent:
        whole, part, turned = sent(0)
    whole += 1
    assert torch.equal(part, pixels[10:20] + 1)
    assert torch.equal(turned, (pixels + 1).reshape(10, 100).T)
    assert part.untyped_storage().nbytes() < 2 * pixels.nbytes


def test_a_sender_that_is_gone_is_an_end_of_file() -> None:
    ours, theirs = multiprocessing.Pipe()
    theirs.close()
    with pytest.raises(EOFError):
        Receiver(ours).receive()
