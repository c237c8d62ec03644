"""A resume point is read back as it was written, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interlace.outputs import remove
from interlace.training.resume import Point, newest_point, sorted_points, write_point

UPDATES = [(1, 0.1, 1e-5, 0.3, 100), (2, 1 / 3, 2e-5, 0.7, 220)]


def layers(step: int) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(step)
    return [{"a": torch.randn(3, 2, generator=generator)}, {"b": torch.zeros(4)}]


def point(scratch: Path, step: int) -> None:
    write_point(scratch, step, layers(step), updates=UPDATES)


def newest(scratch: Path) -> Point:
    found, _ = newest_point(scratch)
    assert found
    return found


def test_a_point_is_read_back_to_the_bit(tmp_path: Path) -> None:
    point(tmp_path, 2)
    found = newest(tmp_path)
    assert found.step == 2
    assert [tuple(update) for update in found.updates] == UPDATES
    for read, written in zip(found.tensors(), layers(2), strict=True):
        assert read.keys() == written.keys()
        assert all(torch.equal(read[name], written[name]) for name in read)


def test_the_newest_point_is_that_of_the_last_step(tmp_path: Path) -> None:
    for step in (2, 9, 10):
        point(tmp_path, step)
    assert newest(tmp_path).step == 10


def test_two_points_stay(tmp_path: Path) -> None:
    for step in (2, 9, 10, 100):
        point(tmp_path, step)
    assert [path.name for path in sorted_points(tmp_path)] == ["point-100", "point-10"]


def test_there_may_be_none(tmp_path: Path) -> None:
    assert newest_point(tmp_path / "not there") == (None, [])


@pytest.mark.parametrize("file", ["layer-0.safetensors", "layer-1.safetensors", "point.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "empty"])
def test_a_damaged_point_is_passed_over_for_the_one_before(
    tmp_path: Path, file: str, damage: str
) -> None:
    point(tmp_path, 2)
    point(tmp_path, 4)
    path = tmp_path / "point-4" / file
    raw = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "flipped":
        path.write_bytes(bytes([raw[0] ^ 0xFF]) + raw[1:])
    else:
        path.write_bytes(raw[: len(raw) // 2] if damage == "cut" else b"")
    found, damages = newest_point(tmp_path)
    assert found
    assert found.step == 2
    assert len(damages) == 1
    assert str(tmp_path / "point-4") in damages[0]


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_flipped_bit_of_the_weights_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("points")
    point(folder, 2)
    path = folder / "point-2/layer-0.safetensors"
    raw = bytearray(path.read_bytes())
    raw[place % len(raw)] ^= 1 << bit
    path.write_bytes(raw)
    assert newest_point(folder)[0] is None
    remove(folder)


def test_a_record_that_is_no_record_is_damage(tmp_path: Path) -> None:
    point(tmp_path, 2)
    (tmp_path / "point-2/point.json").write_text(json.dumps([1, 2]))
    assert newest_point(tmp_path)[0] is None


def test_a_layer_that_cannot_be_made_leaves_no_half_a_point(tmp_path: Path) -> None:
    def failing() -> object:
        yield layers(4)[0]
        raise ZeroDivisionError

    point(tmp_path, 2)
    with pytest.raises(ZeroDivisionError):
        write_point(tmp_path, 4, failing(), updates=UPDATES)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["point-2"]
