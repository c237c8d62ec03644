"""How large a calibration set is enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyarrow import csv

from interlace.errors import InputError

ENOUGH = 0.95  # Kendall's tau from which a part is said to rank as the whole does


def read_sizes(path: Path) -> list[dict[str, Any]]:
    """Rows of `stability.SIZES`, as `score` wrote them.

    Raises:
        InputError: the file is not there.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; run `dvc repro`")
    rows: list[dict[str, Any]] = csv.read_csv(path).to_pylist()
    return rows


def enough(rows: Sequence[Mapping[str, Any]], share: float) -> dict[str, float]:
    """How little of the training set would have ranked triplets as the calibration set did.

    Args:
        rows: of `stability.SIZES`.
        share: of the training set that the calibration set is, 0 to 1.

    Returns:
        `calibration_share`, percent of the training set; `calibration_tenth_tau`, Kendall's tau of
        a tenth of the calibration set with all of it; `calibration_enough_share`, percent of the
        training set in the smallest part whose tau is at least `ENOUGH`, and
        `calibration_enough_tau`. What was not measured is missing.
    """
    known = [row for row in rows if row["tau_3"] is not None]
    if not known:
        return {}
    found = {"calibration_share": 100 * share}
    tenth = min(known, key=lambda row: abs(row["share"] - 0.1))
    if abs(tenth["share"] - 0.1) < 0.02:  # a part is a whole number of samples
        found["calibration_tenth_tau"] = tenth["tau_3"]
    if smallest := next((row for row in known if row["tau_3"] >= ENOUGH), None):
        found["calibration_enough_share"] = 100 * share * smallest["share"]
        found["calibration_enough_tau"] = smallest["tau_3"]
    return found
