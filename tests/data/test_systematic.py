"""A draw is the beginning of one fixed order of a subset's rows, spread over all of it."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from interlace.data.systematic import rows_in_group, rows_per_group, rows_to_draw, visit_order
from interlace.samples.order import shuffle_key

SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=30)
STARTS = st.integers(0, 2**64 - 1)
SHARES = st.sampled_from([0.1, 0.34, 0.5, 1.0])


def start(seed: int) -> int:
    return int.from_bytes(shuffle_key(seed, "start")[:8])


def draw(sizes: list[int], rows: int, share: float, seed: int) -> set[tuple[int, int]]:
    """Pairs of group and row."""
    return {
        (group, row)
        for group, count in rows_per_group(sizes, rows, share=share, start=start(seed)).items()
        for row in rows_in_group(sizes[group], count, seed, group)
    }


@given(groups=st.integers(1, 500), start=STARTS)
def test_every_group_is_visited_once(groups: int, start: int) -> None:
    assert sorted(visit_order(groups, start)) == list(range(groups))


def test_the_first_visits_are_spread_over_the_subset() -> None:
    for seed in range(50):
        first = sorted(islice(visit_order(1000, start(seed)), 20))
        gaps = [b - a for a, b in zip(first, [*first[1:], first[0] + 1000], strict=True)]
        assert max(gaps) <= 3 * 1000 / 20  # random visits would leave gaps of about 180
        assert min(gaps) >= 1000 / 20 / 3


def test_all_groups_and_all_rows_are_equally_likely() -> None:
    groups = Counter(g for seed in range(6000) for g in islice(visit_order(12, start(seed)), 3))
    rows = Counter(row for seed in range(4000) for row in draw([10] * 8, 10, 0.5, seed))
    for counts, items, expected in ((groups, 12, 1500), (rows, 80, 500)):
        assert len(counts) == items
        assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


@given(sizes=SIZES, share=SHARES, seed=st.integers(0, 99), data=st.data())
def test_a_draw_has_its_rows_and_a_larger_one_holds_it(
    sizes: list[int], share: float, seed: int, data: st.DataObject
) -> None:
    rows = data.draw(st.integers(0, sum(sizes)))
    small = draw(sizes, rows, share, seed)
    assert len(small) == rows
    assert all(row < sizes[group] for group, row in small)
    assert small <= draw(sizes, data.draw(st.integers(rows, sum(sizes))), share, seed)


@given(groups=st.integers(1, 60), size=st.integers(2, 50), start=STARTS, data=st.data())
def test_rows_read_exceed_rows_drawn_over_share_by_at_most_one_group(
    groups: int, size: int, start: int, data: st.DataObject
) -> None:
    rows = data.draw(st.integers(1, groups * size // 2))
    read = size * len(rows_per_group([size] * groups, rows, share=0.5, start=start))
    assert read <= 2 * rows + size


def test_a_smaller_share_reads_more_groups() -> None:
    wide, narrow = (rows_per_group([100] * 50, 100, share=s, start=0) for s in (0.1, 1.0))
    assert (len(wide), len(narrow)) == (10, 1)


def test_a_share_of_rows_is_rounded_up_but_not_by_binary_fractions() -> None:
    assert [rows_to_draw(n, 0.01) for n in (0, 1, 99, 100, 101)] == [0, 1, 1, 1, 2]
    assert rows_to_draw(100, 0.07) == 7  # 0.07 * 100 > 7 in floats
    assert rows_to_draw(10, 1.0) == 10


def test_rows_of_a_group_depend_on_seed_and_group_and_are_sorted() -> None:
    draws = {tuple(rows_in_group(100, 10, seed, key)) for seed in (0, 1) for key in ("a", "b")}
    assert len(draws) == 4
    assert all(list(rows) == sorted(rows) for rows in draws)
