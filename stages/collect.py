"""`collect`: measure how much every span of layers changes the hidden states."""

from pathlib import Path

import click

from interlace.chat import open_processor
from interlace.hidden_states import collect, provenance_of
from interlace.params import CollectParams
from interlace.sources import model_folder, open_model
from stages.command import command, pinned, scratch_folder


@command(CollectParams)
def main(params: CollectParams) -> None:
    """Run the dense model over the calibration set and the probes; write what it did to Parquet."""
    model, given = pinned("model"), params.collect
    folder, trust = model_folder(model), model["trust_remote_code"]
    rows = [Path("data/calibration"), Path("data/probes")]
    inputs, out = [Path("artifacts/sources.json"), *rows], Path("artifacts/hidden_states")
    key = given.model_copy(update={"max_bad": 0})  # may be raised when it stopped a run
    found = collect(
        open_model(folder, trust_remote_code=trust, **given.opening()),
        open_processor(folder, max_pixels=given.max_pixels, trust_remote_code=trust),
        rows,
        out,
        params=given,
        scratch=scratch_folder("collect", key, inputs),
        provenance=provenance_of(model),
    )
    if found:
        where = f" (see {out}/left_out.parquet)" if found.left_out else ""
        click.echo(f"collect: {found.measured} samples, {found.left_out} left out{where}")


if __name__ == "__main__":
    main()
