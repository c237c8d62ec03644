"""The smallest calibration set that ranks layers as the full one does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interlace.scores.table import read_csv
from interlace.selection.calibration import SIZES

ENOUGH = 0.95  # Kendall's tau from which a part is said to rank as the whole does


def read_sizes(path: Path) -> list[dict[str, Any]]:
    """Rows of `calibration.SIZES`, as `score` wrote them.

    Raises:
        InputError: the file is missing, or holds something else.
    """
    rows: list[dict[str, Any]] = read_csv(path, SIZES).to_pylist()
    return rows


def enough(rows: Sequence[Mapping[str, Any]], share: float) -> dict[str, float]:
    """Find the smallest calibration set that ranks triplets as the full one does.

    Args:
        rows: of `calibration.SIZES`.
        share: of the training set that the calibration set is, 0 to 1.

    Returns:
        `calibration_share`, percent of the training set; `calibration_tenth_tau`, Kendall's tau of
        a tenth of the calibration set with all of it; `calibration_enough_share`, percent of the
        training set in the smallest part whose tau is at least `ENOUGH`, and
        `calibration_enough_tau`. What was not measured is missing.
    """
    ranked = [row for row in rows if row["tau_3"] is not None]
    if not ranked:
        return {}
    numbers = {"calibration_share": 100 * share}
    tenth = min(ranked, key=lambda row: abs(row["share"] - 0.1))
    if abs(tenth["share"] - 0.1) < 0.02:  # a part is a whole number of samples
        numbers["calibration_tenth_tau"] = tenth["tau_3"]
    if smallest := next((row for row in ranked if row["tau_3"] >= ENOUGH), None):
        numbers["calibration_enough_share"] = 100 * share * smallest["share"]
        numbers["calibration_enough_tau"] = smallest["tau_3"]
    return numbers
