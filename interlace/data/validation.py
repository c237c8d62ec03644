"""Rows of the training set that judge candidates, and other rows that these are healed on.

The rows that judge are drawn by the seed from those that calibrate nothing: the methods and the
compensation have seen the calibration rows. Held-out rows are not in the training set.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from interlace.errors import InputError
from interlace.samples.order import shuffle_key
from interlace.samples.rows import iterate_tables, schema_of, shards

LARGEST_SHARE = 4  # at most one of so many training rows judges


def split_training(
    train: Path,
    calibration: Path,
    healing: Path,
    validation: Path,
    *,
    seed: int,
    judging: int,
    healed: int,
) -> None:
    """Write rows to judge candidates by, and other rows to heal them on.

    Args:
        train: folder of training rows.
        calibration: folder of the rows among them that judge nothing.
        healing: folder to write the rows to heal on to.
        validation: folder to write the rows that judge to.
        seed: of the draw.
        judging: rows that judge, at most; a quarter of the training set is the limit, too.
        healed: rows to heal on, at most.

    Raises:
        InputError: all training rows calibrate.
    """
    ids = sorted(_ids(train), key=lambda i: shuffle_key(seed, "candidates", i))
    calibration_ids = set(_ids(calibration))
    limit = min(judging, max(1, len(ids) // LARGEST_SHARE))
    judging_ids = set([i for i in ids if i not in calibration_ids][:limit])
    if not judging_ids:
        raise no_rows_to_judge()
    healing_ids = set([i for i in ids if i not in judging_ids][:healed])
    schema = schema_of(train)
    with shards(healing, schema) as to_healing, shards(validation, schema) as to_validation:
        for rows in iterate_tables(train):
            for ids_of_set, add in ((healing_ids, to_healing), (judging_ids, to_validation)):
                mask = pa.array(
                    [i in ids_of_set for i in rows["sample_id"].to_pylist()], pa.bool_()
                )
                add(rows.filter(mask))


def no_rows_to_judge() -> InputError:
    """Return the error for a training set of which all rows calibrate."""
    return InputError(
        "select.candidates: no row can judge them, since all training rows calibrate; lower"
        " data.calibration_fraction, or set select.candidates to 0"
    )


def _ids(folder: Path) -> list[str]:
    tables = iterate_tables(folder, ["sample_id"])
    return [sample_id for rows in tables for sample_id in rows["sample_id"].to_pylist()]
