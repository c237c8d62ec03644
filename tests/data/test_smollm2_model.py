"""The conversion of data/smollm2, on a tiny GGUF file that is written here."""

from __future__ import annotations

from pathlib import Path

import convert
import fetch
import gguf
import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TOKENS = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "12", "he"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)
NAMES = {  # of GGUF, by the end of transformers' name
    "embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    **{f"{name}_proj": f"ffn_{name}" for name in ("gate", "up", "down")},
    **{f"{name}_proj": f"attn_{name}" for name in ("q", "k", "v")},
    "o_proj": "attn_output",
}


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).to(torch.bfloat16)


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of a query or key projection as GGUF's llama has them."""
    halves = weight.reshape(heads, 2, -1, weight.shape[1])  # (head, half, pair, input)
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path: Path, model: LlamaForCausalLM) -> Path:
    writer, config = gguf.GGUFWriter(path, "llama"), model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(100000.0)
    writer.add_rope_dimension_count(8)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
    writer.add_token_merges(["1 2", "h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)
    for name, weight in model.model.named_parameters(prefix="model"):
        end = next(NAMES[end] for end in NAMES if f"{name}.".endswith(f"{end}.weight."))
        array = weight.detach().float().numpy()
        if end in ("attn_q", "attn_k"):
            array = interleaved(array, 4 if end == "attn_q" else 2)
        block = f"blk.{name.split('.')[2]}." if ".layers." in name else ""
        writer.add_tensor(f"{block}{end}.weight", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted model and tokenizer."""
    folder = tmp_path_factory.mktemp("smollm2")
    file = write_gguf(folder / "tiny.gguf", tiny())
    convert.dequantised(file).save_pretrained(folder / "model")
    convert.tokenizer_of(file).save_pretrained(folder / "model")
    return folder / "model"


def test_the_weights_are_those_of_the_file_in_transformers_own_order(checkpoint: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="auto")
    assert type(model) is LlamaForCausalLM
    for name, weight in tiny().state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    assert model.config.rms_norm_eps == 1e-5
    assert not hasattr(model.config, "quantization_config")
    assert model.generation_config.eos_token_id == 2


def test_the_tokenizer_opens_splits_digits_and_renders_conversations(checkpoint: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    text = "he said 12,\n na\u00efve"
    assert tokenizer.tokenize("he 12") == ["he", "\u0120", "1", "2"]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.eos_token_id == 2
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert rendered == "<|im_start|>user\nHi<|im_end|>\n"


def test_the_readme_names_the_wheel_and_its_hash() -> None:
    readme = (Path(fetch.__file__).parent / "README.md").read_text(encoding="utf-8")
    assert fetch.SHA256 in readme
    assert fetch.WHEEL in readme
