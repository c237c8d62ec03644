"""A resume point is read back as it was written, or not at all."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from interlace.errors import InputError
from interlace.training.resume import Update, newest_point, sorted_points, write_point


def states(step: int) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(step)
    return [{"a": torch.randn(3, 2, generator=generator)}, {"b": torch.zeros(4)}]


def updates(steps: int) -> list[Update]:
    return [
        Update(step=step, learning_rate=1e-5 / step, tokens=7 * step, values={"loss": 1 / step})
        for step in range(1, steps + 1)
    ]


def write(scratch: Path, *steps: int) -> None:
    for step in steps:
        write_point(scratch, states(step), updates(step))


def test_a_point_is_read_back_to_the_bit(tmp_path: Path) -> None:
    write(tmp_path, 3)
    point, damages = newest_point(tmp_path)
    assert point and not damages
    assert (point.step, list(point.updates)) == (3, updates(3))
    for tensors, written in zip(point.tensors(), states(3), strict=True):
        assert tensors.keys() == written.keys()
        assert all(torch.equal(tensors[name], written[name]) for name in tensors)


def test_the_two_newest_points_stay(tmp_path: Path) -> None:
    write(tmp_path, 2, 9, 10, 100)
    assert [path.name for path in sorted_points(tmp_path)] == ["point-100", "point-10"]


@pytest.mark.parametrize("file", ["layer-0.safetensors", "layer-1.safetensors", "point.json"])
@pytest.mark.parametrize("damage", ["one bit flipped", "deleted", "extended"])
def test_a_damaged_point_is_skipped_for_the_one_before(
    tmp_path: Path, file: str, damage: str
) -> None:
    write(tmp_path, 2, 4)
    path = tmp_path / "point-4" / file
    content = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    elif damage == "extended":
        path.write_bytes(content.replace(b'"files"', b'"extra": 1, "files"') + b" ")
    else:
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    point, damages = newest_point(tmp_path)
    assert point and point.step == 2
    assert len(damages) == 1 and str(tmp_path / "point-4") in damages[0]


@pytest.mark.parametrize(
    ("failure", "error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left"), InputError, "point-4: .*No space left.* point-2"),
        (SafetensorError("No space left"), InputError, "point-4: .*No space left.* point-2"),
        (ZeroDivisionError("by zero"), ZeroDivisionError, "^by zero$"),
    ],
)
def test_a_failed_write_leaves_the_earlier_point(
    tmp_path: Path, failure: Exception, error: type[Exception], message: str
) -> None:
    def failing() -> Iterator[dict[str, torch.Tensor]]:
        yield states(4)[0]
        raise failure

    write(tmp_path, 2)
    with pytest.raises(error, match=message):
        write_point(tmp_path, failing(), updates(4))
    assert [path.name for path in tmp_path.iterdir()] == ["point-2"]
