"""`pin`: check everything that can be checked, and pin the model and the data."""

from pathlib import Path

import click

from interlace.data.probes import tasks_to_ask
from interlace.data.subsets import check_subsets
from interlace.evaluation.benchmarks.pin import pin_evaluation
from interlace.evaluation.run.validate import validate
from interlace.outputs import write_json
from interlace.params.whole import PinParams
from interlace.selection.feasible import check_parameters
from interlace.sources.pin import pin_data, pin_model
from interlace.sources.pinned import PinnedSources
from stages.command import check_program, command, scratch_root


@command(PinParams)
def main(params: PinParams) -> None:
    """Check the parameters, the model and the data, and pin what they are."""
    check_program(params.launch)
    tasks_to_ask(params.probes)
    model, data = params.model, params.data
    hashes, trust = scratch_root() / "pin" / "hashes.json", model.trust_remote_code
    pinned_model = pin_model(model.id, model.revision, hashes=hashes, trust_remote_code=trust)
    pinned_data = pin_data(data.id, data.revision, field="data.id", hashes=hashes)
    layers = pinned_model.n_layers
    drops = check_parameters(params, layers, pinned_model.deepstack_layers)
    check_subsets(pinned_data, data, checked=scratch_root() / "pin" / "checked.json")
    validate(params.evaluate)
    records = {"model": pinned_model, "data": pinned_data}
    sources = PinnedSources.model_validate(records | pin_evaluation(params.evaluate, hashes))
    write_json(Path("artifacts/sources.json"), sources.as_json())
    many = "by the budget, some" if drops is None else drops
    click.echo(f"pin: {model.id}: {many} of {layers} layers are to go")


if __name__ == "__main__":
    main()
