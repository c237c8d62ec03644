"""A resume point is read back as it was written, or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interlace.outputs import remove
from interlace.training.resume import Point, Update, newest_point, sorted_points, write_point


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


def newest(scratch: Path) -> Point:
    point, _ = newest_point(scratch)
    assert point
    return point


def test_a_point_is_read_back_to_the_bit(tmp_path: Path) -> None:
    write(tmp_path, 3)
    point = newest(tmp_path)
    assert (point.step, list(point.updates)) == (3, updates(3))
    for tensors, written in zip(point.tensors(), states(3), strict=True):
        assert tensors.keys() == written.keys()
        assert all(torch.equal(tensors[name], written[name]) for name in tensors)


def test_the_two_newest_points_stay(tmp_path: Path) -> None:
    write(tmp_path, 2, 9, 10, 100)
    assert newest(tmp_path).step == 100
    assert [path.name for path in sorted_points(tmp_path)] == ["point-100", "point-10"]


def test_a_folder_without_points_has_no_newest(tmp_path: Path) -> None:
    assert newest_point(tmp_path / "missing") == (None, [])


@pytest.mark.parametrize("file", ["layer-0.safetensors", "layer-1.safetensors", "point.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "deleted", "empty", "[1, 2]"])
def test_a_damaged_point_is_skipped_for_the_one_before(
    tmp_path: Path, file: str, damage: str
) -> None:
    write(tmp_path, 2, 4)
    path = tmp_path / "point-4" / file
    content = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(
            {
                "cut": content[: len(content) // 2],
                "flipped": bytes([content[0] ^ 0xFF]) + content[1:],
                "empty": b"",
            }.get(damage, damage.encode())
        )
    point, damages = newest_point(tmp_path)
    assert point and point.step == 2
    assert len(damages) == 1 and str(tmp_path / "point-4") in damages[0]


def test_an_unknown_field_is_damage(tmp_path: Path) -> None:
    write(tmp_path, 2)
    path = tmp_path / "point-2/point.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"extra": 1}))
    assert newest_point(tmp_path)[0] is None


@given(index=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_flipped_bit_of_the_weights_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, index: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("points")
    write(folder, 2)
    path = folder / "point-2/layer-0.safetensors"
    content = bytearray(path.read_bytes())
    content[index % len(content)] ^= 1 << bit
    path.write_bytes(content)
    assert newest_point(folder)[0] is None
    remove(folder)


def test_a_failed_write_leaves_no_half_point(tmp_path: Path) -> None:
    def failing() -> Iterator[dict[str, torch.Tensor]]:
        yield states(4)[0]
        raise ZeroDivisionError

    write(tmp_path, 2)
    with pytest.raises(ZeroDivisionError):
        write_point(tmp_path, failing(), updates(4))
    assert [path.name for path in tmp_path.iterdir()] == ["point-2"]
