"""Configurations of tiny decoders: of each family of text-only models, and inside of others.

They are JSON as checkpoints on the hub have it: per-layer lists are left to defaults and patterns
where models do so. Decoders are 32 wide.
"""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]
VOCABULARY = 100
SLIDING = {"sliding_window": 4, "sliding_window_pattern": 3, "tie_word_embeddings": True}
MOE = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "norm_topk_prob": True,
}
DEEPSEEK_MOE = MOE | {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 1.0,
    "first_k_dense_replace": 2,
}
LINEAR = {
    "full_attention_interval": 3,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
}


def text(model_type: str, **extra: Any) -> Config:
    return {
        "model_type": model_type,
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 6,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        "tie_word_embeddings": False,
    } | extra


def without(config: Config, name: str) -> Config:
    return {key: value for key, value in config.items() if key != name}


def rope(**extra: Any) -> Config:
    return {"rope_type": "default", "rope_theta": 10000.0} | extra


INTERLEAVED = rope(mrope_section=[4, 2, 2], mrope_interleaved=True, partial_rotary_factor=1.0)
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "rope_parameters": rope(),
}


def decoder(kind: str, *, head_dim: bool = True, **extra: Any) -> Config:
    """A decoder that is a model of its own."""
    config = text(kind, **extra)
    return config if head_dim else without(config, "head_dim")


SPARSE_GPT = {
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": 4,
    "rope_parameters": rope(),
}
QWEN_WINDOW = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 3}
GRANITE = {
    "embedding_multiplier": 2.0,
    "logits_scaling": 2.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.25,
}
LONG = {
    "type": "longrope",
    "short_factor": [1.0 + 0.1 * i for i in range(6)],  # as many as layers, and not one for each
    "long_factor": [2.0 + 0.1 * i for i in range(6)],
}
DECODERS = {
    "cohere2": decoder("cohere2", head_dim=False, **SLIDING),
    "deepseek_v3": decoder(
        "deepseek_v3", head_dim=False, **LATENT, **DEEPSEEK_MOE | {"num_key_value_heads": 2}
    ),
    "exaone4": decoder("exaone4", **SLIDING),
    "gemma": decoder("gemma", tie_word_embeddings=True),
    "gemma2": decoder("gemma2", sliding_window=4, query_pre_attn_scalar=16),
    "gemma3_text": decoder("gemma3_text", query_pre_attn_scalar=16, **SLIDING),
    "glm4": decoder("glm4", partial_rotary_factor=0.5),
    "gpt_oss": decoder("gpt_oss", **SPARSE_GPT),
    "granite": decoder("granite", head_dim=False, **GRANITE),
    "lfm2": decoder(
        "lfm2", full_attn_idxs=[1, 3, 4], conv_L_cache=3, block_auto_adjust_ff_dim=False
    ),
    "llama": decoder("llama"),
    "llama, tied": decoder("llama", tie_word_embeddings=True),
    "ministral3": decoder(
        "ministral3",
        rope_parameters=rope(llama_4_scaling_beta=0.1, original_max_position_embeddings=8),
    ),
    "mistral": decoder("mistral", sliding_window=4),
    "mixtral": decoder("mixtral", num_local_experts=4, num_experts_per_tok=2),
    "olmo2": decoder("olmo2", head_dim=False),
    "olmo3": decoder("olmo3", head_dim=False, sliding_window=4),
    "phi3": decoder("phi3", head_dim=False, partial_rotary_factor=0.75, sliding_window=6),
    "phi3, long": decoder(
        "phi3",
        head_dim=False,
        partial_rotary_factor=0.75,
        original_max_position_embeddings=2,  # all inputs are long
        rope_scaling=LONG,
    ),
    "qwen2": decoder("qwen2", head_dim=False, **QWEN_WINDOW),
    "qwen3": decoder("qwen3", **QWEN_WINDOW),
    "qwen3_5_text": decoder("qwen3_5_text", rope_parameters=INTERLEAVED, **LINEAR),
    "qwen3_moe": decoder("qwen3_moe", mlp_only_layers=[3], decoder_sparse_step=2, **MOE),
    "smollm3": decoder(
        "smollm3", no_rope_layer_interval=3, use_sliding_window=True, sliding_window=4
    ),
    "smollm3, listed": decoder("smollm3", no_rope_layers=[1, 0, 0, 1, 1, 0]),
}
