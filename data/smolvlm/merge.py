"""Put the committed weights into the decoder's: a stock Idefics3 checkpoint in bfloat16.

    python merge.py --decoder ../smollm2/model

Takes adapters.safetensors and writes model/, which opens with `from_pretrained` alone.
"""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import torch
from adapters import COMMITTED, build_adapted, load_weights, sees
from assemble import build_model, check_decoder
from transformers.utils import logging as transformers_logging

from interlace.errors import InputError
from interlace.printable import say
from interlace.system.documents import read_yaml
from interlace.system.outputs import whole
from interlace.training.lora import merged_weights

CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: image-text-to-text
---

# SmolLM2 with eyes

An Idefics3 of SmolLM2-135M-Instruct and a small vision tower, trained on the handwriting, charts
and shapes of Interlace's demo.
"""


def merged(adapted: Any, fresh: Any) -> Any:
    """Return a model without adapters that computes the same as the adapted one.

    Args:
        adapted: with trained tower, connector and adapters.
        fresh: the same decoder without adapters; changed in place.
    """
    weights = {name: value for name, value in adapted.named_parameters() if sees(name)}
    weights |= merged_weights(adapted, lambda _: nullcontext())
    own = dict(fresh.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
    return fresh


def save(model: Any, processor: Any, decoder: Path, out: Path) -> None:
    """Save the model in bfloat16 as a stock checkpoint, whole or not at all."""
    with whole(out) as partial:
        model.to(torch.bfloat16).save_pretrained(partial)
        processor.save_pretrained(partial)
        (partial / "README.md").write_text(CARD)
        if (decoder / "LICENSE").exists():
            shutil.copyfile(decoder / "LICENSE", partial / "LICENSE")
        config = json.loads((partial / "config.json").read_text())
        config["text_config"]["tie_word_embeddings"] = True  # versions disagree which one counts
        (partial / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


@click.command()
@click.option("--params", "params_path", default="params.yaml", show_default=True)
@click.option("--decoder", default="../smollm2/model", show_default=True, help="Its checkpoint.")
@click.option("--weights", default=str(COMMITTED), show_default=True, help="What was trained.")
@click.option("--out", default="model", show_default=True, help="Folder of the checkpoint.")
def main(params_path: str, decoder: str, weights: str, out: str) -> None:
    """Merge and write the checkpoint."""
    transformers_logging.set_verbosity_error()
    check_decoder(Path(decoder))
    params = read_yaml(Path(params_path))
    adapted, processor = build_adapted(Path(decoder), params)
    load_weights(adapted, Path(weights))
    fresh = build_model(Path(decoder), params["tower"], processor, params["seed"])
    save(merged(adapted, fresh), processor, Path(decoder), Path(out))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        say(f"error: {error}", error=True)
        raise SystemExit(2) from None
