"""`pin`: check everything that can be checked, and pin the model and the data."""

from pathlib import Path

import click

from interlace.evaluation import validate
from interlace.feasible import check_asked
from interlace.outputs import write_json
from interlace.params import PinParams
from interlace.probes import tasks_to_ask
from interlace.samples import check_source
from interlace.sources import parquet_files, pin_data, pin_model
from stages.command import check_program, command, scratch_root


@command(PinParams)
def main(params: PinParams) -> None:
    """Check the parameters, the model and the data, and pin what they are."""
    check_program(params.launch)
    tasks_to_ask(params.probes)
    model, data, heldout = params.model, params.data, params.evaluate.heldout
    hashes, trust = scratch_root() / "pin" / "hashes.json", model.trust_remote_code
    pinned_model = pin_model(model.id, model.revision, hashes=hashes, trust_remote_code=trust)
    pinned_data = pin_data(data.id, data.revision, field="data.id", hashes=hashes)
    layers = pinned_model["n_layers"]
    drops = check_asked(params, layers, pinned_model["deepstack_layers"])
    check_source(parquet_files(pinned_data))
    validate(params.evaluate)
    sources = {"pinned_model": pinned_model, "pinned_data": pinned_data}
    held = heldout and pin_data(heldout, None, field="evaluate.heldout", hashes=hashes)
    write_json(Path("artifacts/sources.json"), sources | {"pinned_heldout": held})
    many = "by the budget, some" if drops is None else drops
    click.echo(f"pin: {model.id}: {many} of {layers} layers are to go")


if __name__ == "__main__":
    main()
