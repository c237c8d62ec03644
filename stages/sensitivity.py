"""`sensitivity`: measure the loss on answers as layers go or weights move."""

from pathlib import Path

import pyarrow.parquet as pq

from interlace.params.measuring import LossCriterion, SensitivityParams
from interlace.params.section import validated
from interlace.printable import say
from interlace.scores.table import SCHEMA
from interlace.system.outputs import whole

from .command import command, is_first_process, pinned, read_pinned, scratch_folder


@command(SensitivityParams)
def main(params: SensitivityParams) -> None:
    """Measure what sleb, search or taylor needs; write an empty table for other methods."""
    if not is_first_process():
        return  # one process measures, however many are launched
    out, calibration = Path("artifacts/sensitivity"), Path("data/calibration")
    criterion = read_pinned("params").get("loss_criterion")
    if criterion is None:
        with whole(out) as partial:
            partial.mkdir()
            pq.write_table(SCHEMA.empty_table(), partial / "scores.parquet")
        say("sensitivity: the method reads no loss on answers")
        return
    from interlace.measurements.collect import provenance_of
    from interlace.measurements.sensitivity import measure_method

    model, options = pinned().model, params.sensitivity_options
    dense, needed = model.checkpoint(), validated(LossCriterion, criterion, "artifacts/params.json")
    inputs = [Path("artifacts/dense.json"), calibration]
    models = (
        dense.open_model(dtype=options.dtype),
        dense.open_processor(max_pixels=options.max_pixels),
    )
    paths, provenance = {"calibration": calibration, "out": out}, provenance_of(model)
    with scratch_folder("sensitivity", inputs, options, needed) as scratch:
        measure_method(
            *models, needed=needed, params=options, provenance=provenance, scratch=scratch, **paths
        )
    say(f"sensitivity: measured {needed.criterion}")


if __name__ == "__main__":
    main()
