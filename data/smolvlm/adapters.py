"""The weights that training adds to the decoder's own: tower, connector, low-rank adapters.

    python adapters.py

writes them in bfloat16, from joint.safetensors to adapters.safetensors, which git keeps.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import torch
from assemble import build_model, build_processor
from safetensors.torch import load_file, save_file

from interlace.errors import InputError
from interlace.model.decoder import decoder_layers
from interlace.params.healing import Finetune
from interlace.system.outputs import whole
from interlace.training.lora import adapt, is_adapter

SEES = ("model.vision_model.", "model.connector.")  # the tower and the connector
JOINT, COMMITTED = Path("joint.safetensors"), Path("adapters.safetensors")


def sees(name: str) -> bool:
    """Return True if a weight belongs to the tower or the connector."""
    return name.startswith(SEES)


def build_adapted(decoder: Path, params: Mapping[str, Any]) -> tuple[Any, Any]:
    """Build the model with adapters on its upper layers, which change nothing yet.

    Args:
        decoder: folder of its checkpoint.
        params: seed, tower and adapters of params.yaml.

    Returns:
        The model, whose adapters alone are trained, and its processor. An adapted weight is
        `W + B A`.
    """
    processor = build_processor(decoder)
    model = build_model(decoder, params["tower"], processor, params["seed"])
    rank, first = params["adapters"]["rank"], params["adapters"]["first_layer"]
    recipe = Finetune(lora_rank=rank, lora_alpha=rank, lora_dropout=0.0)
    adapt(model, range(first, len(decoder_layers(model))), recipe)
    for name, weight in model.named_parameters():
        weight.requires_grad = is_adapter(name)
    return model.eval(), processor


def save_weights(model: Any, path: Path) -> None:
    """Write the tower, the connector and the adapters, in float32."""
    names = [name for name, _ in model.named_parameters() if sees(name) or is_adapter(name)]
    weights = dict(model.named_parameters())
    with whole(path) as partial:
        save_file({name: weights[name].detach().contiguous() for name in names}, partial)


def check_weights(path: Path) -> None:
    """Refuse a file of trained weights that is not there.

    Raises:
        InputError: it is missing.
    """
    if not path.is_file():
        raise InputError(f"{path}: no trained weights there; train them by `make train-smolvlm`")


def load_weights(model: Any, path: Path) -> None:
    """Load weights that training wrote, in any type.

    Raises:
        InputError: they are missing, the model has no such ones, or they have other shapes.
    """
    check_weights(path)
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in load_file(path).items():
            if name not in own or own[name].shape != value.shape:
                raise InputError(
                    f"{path}: {name} {list(value.shape)} does not fit the sizes in params.yaml;"
                    " set them back, or train again"
                )
            own[name].copy_(value)


@click.command()
@click.option("--source", default=str(JOINT), show_default=True)
@click.option("--out", default=str(COMMITTED), show_default=True)
def main(source: str, out: str) -> None:
    """Write the trained weights in bfloat16."""
    weights = {name: value.bfloat16() for name, value in load_file(source).items()}
    with whole(Path(out)) as partial:
        save_file(weights, partial)
    click.echo(f"{out}: {Path(out).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
