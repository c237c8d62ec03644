"""`pin`: check all that can be checked; pin the parameters, the code, the model and the data."""

from interlace.data.check import check_data
from interlace.data.probes import pin_prompts
from interlace.evaluation.benchmarks.pin import pin_evaluation
from interlace.evaluation.run.validate import check_evaluation
from interlace.params.whole import PinParams, settings
from interlace.printable import say
from interlace.selection.feasible import check_parameters, loss_criterion
from interlace.sources.opened import check_pinned_model, image_bounds
from interlace.sources.pin import pin_data, pin_model
from interlace.sources.pinned import PinnedSources
from interlace.speed.check import check_served_speed
from interlace.training.recipe import check_recipe

from .command import ANSWERS, ARTIFACTS, command, scratch_root, write_pinned
from .digests import code_digest, code_digests
from .launch import check_program


@command(PinParams)
def main(params: PinParams) -> None:
    """Check the parameters, the model and the data; write down what they and the code are."""
    check_program(params.launch)
    check_served_speed(params.ttft)
    model, data, trust = params.model, params.data, params.model.trust_remote_code
    hashes, passed = (scratch_root() / "pin" / name for name in ("hashes.json", code_digest("pin")))
    prompts = pin_prompts(params.probes, hashes)
    dense = pin_model(model.id, model.revision, hashes=hashes, trust_remote_code=trust)
    rows = pin_data(data.id, data.revision, field="data.id", hashes=hashes)
    drops = check_parameters(params, dense.n_layers, dense.deepstack_layers, dense.layer_kinds)
    check_recipe(params.finetune, dense)
    loss = loss_criterion(params, dense.n_layers, dense.deepstack_layers)
    check_data(params, dense, rows, ANSWERS, checked=passed)
    check_pinned_model(dense, image_bounds(params), checked=passed / "models.json")
    check_evaluation(params.evaluate, dense.id, ARTIFACTS / "evaluation/dense.json")
    evaluation = pin_evaluation(params.evaluate, hashes, passed / "images.json")
    PinnedSources(model=dense, data=rows, prompts=prompts, **evaluation).write(ARTIFACTS)
    write_pinned("params", settings(params) | {"loss_criterion": loss})
    write_pinned("code", code_digests())
    layers = "by the budget, some" if drops is None else drops
    say(f"pin: {model.id}: {layers} of {dense.n_layers} layers are to go")


if __name__ == "__main__":
    main()
