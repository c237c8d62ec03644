"""`sensitivity`: measure the loss on answers as layers go or weights move."""

from pathlib import Path

import pyarrow.parquet as pq

from interlace.methods.registry import find_method
from interlace.outputs import whole
from interlace.params.measuring import SensitivityParams
from interlace.scores.table import SCHEMA, SLEB, TAYLOR
from stages.command import command, is_first_process, pinned, scratch_folder


@command(SensitivityParams)
def main(params: SensitivityParams) -> None:
    """Measure what sleb or taylor needs; write an empty table for other methods."""
    if not is_first_process():
        return  # one process measures, however many are launched
    out, calibration = Path("artifacts/sensitivity"), Path("data/calibration")
    if not {SLEB, TAYLOR} & {*find_method(params.method).needs}:
        with whole(out) as partial:
            partial.mkdir()
            pq.write_table(SCHEMA.empty_table(), partial / "scores.parquet")
        return
    from interlace.measurements.collect import provenance_of
    from interlace.measurements.sensitivity import measure

    model, given = pinned().model, params.sensitivity
    dense = model.checkpoint()
    inputs = [Path("artifacts/sources.json"), calibration]
    opened = dense.open_model(dtype=given.dtype)
    processor = dense.open_processor(max_pixels=given.max_pixels)
    scratch = scratch_folder("sensitivity", params, inputs)
    about = provenance_of(model)
    measure(opened, processor, calibration, out, params=params, scratch=scratch, provenance=about)


if __name__ == "__main__":
    main()
