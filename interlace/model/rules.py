"""The supported model families, and how the fields of their configurations refer to layers. Data.

A type that transformers maps to image-text-to-text models is here, or in `REFUSED` with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Decoder:
    """The per-layer fields of a kind of decoder, beside `num_hidden_layers`.

    Attributes:
        lists: fields with one entry per layer; entries of dropped layers are removed.
        leading: fields that count leading layers; dropped leading layers are subtracted.
        indices: fields with absolute layer indices; dropped ones are removed, others renumbered.
        periods: fields that repeat a pattern over the layers, as a list says too; removed where
            the kept layers do not follow it.
        maps: fields with settings by layer number; those of dropped layers are removed, the others
            renumbered.
        shared: fields that must be zero, with what they share or pack between layers otherwise.
        unused: fields about packed weights that mean nothing where `shared` is zero.
        inside: attributes of the opened decoder with one entry per layer, read by position.
        last: the entry of `layer_types` that transformers gives the last layer whatever is listed.
    """

    lists: tuple[str, ...] = ()
    leading: tuple[str, ...] = ()
    indices: tuple[str, ...] = ()
    periods: tuple[str, ...] = ()
    maps: tuple[str, ...] = ()
    shared: tuple[tuple[str, str], ...] = ()
    unused: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    last: str = ""


_PLAIN = Decoder()
_TYPED = Decoder(lists=("layer_types",))
_QWEN2 = Decoder(lists=("layer_types",), leading=("max_window_layers",))
_QWEN3_5 = Decoder(lists=("layer_types",), periods=("full_attention_interval",))
_SLIDING = Decoder(
    lists=("layer_types",), periods=("sliding_window_pattern", "_sliding_window_pattern")
)
_SPARSE = Decoder(indices=("mlp_only_layers",))
_FIRST_DENSE = Decoder(leading=("first_k_dense_replace",))
_EXPERTS = Decoder(lists=("layer_types", "mlp_layer_types"))
_SHARED_KV = ("num_kv_shared_layers", "its last layers use the keys and values of earlier ones")
_GEMMA4_UNIFIED = Decoder(
    lists=("layer_types",), maps=("per_layer_config",), shared=(_SHARED_KV,), last="full_attention"
)
_GEMMA4 = replace(
    _GEMMA4_UNIFIED,
    shared=(
        ("hidden_size_per_layer_input", "one tensor packs embeddings of all layers"),
        _SHARED_KV,
    ),
    unused=("vocab_size_per_layer_input",),
)

DECODERS = {
    "aria_text": _PLAIN,
    "cohere2": _SLIDING,
    "cosmos3_edge_text": _PLAIN,
    "deepseek_v3": _FIRST_DENSE,
    "ernie4_5_vl_moe_text": Decoder(
        lists=("mlp_layer_types",),
        periods=("moe_layer_start_index", "moe_layer_end_index", "moe_layer_interval"),
    ),
    "exaone4": _SLIDING,
    "gemma": _PLAIN,
    "gemma2": _SLIDING,
    "gemma3_text": _SLIDING,
    "gemma4_text": _GEMMA4,
    "gemma4_unified_text": _GEMMA4_UNIFIED,
    "glm4": _PLAIN,
    "glm4v_moe_text": _FIRST_DENSE,
    "glm4v_text": _PLAIN,
    "glm_ocr_text": _PLAIN,
    "gpt_oss": _TYPED,
    "granite": _PLAIN,
    "granite4_vision_text": _PLAIN,
    "granite_docling_text": _PLAIN,
    "hunyuan_vl_text": _PLAIN,
    "hyperclovax": _PLAIN,
    "inkling_text": _EXPERTS,
    "kimi_k2": _FIRST_DENSE,
    "lfm2": Decoder(lists=("layer_types",), indices=("full_attn_idxs",)),
    "lfm3": _TYPED,
    "llama": _PLAIN,
    "minimax_m3_vl_text": _EXPERTS,
    "ministral3": _PLAIN,
    "mistral": _PLAIN,
    "mixtral": _PLAIN,
    "molmo2_text": Decoder(indices=("rope_scaling_layers",), inside=("rope_types",)),
    "muse_glimmer_text": Decoder(lists=("layer_types", "layer_rope_theta")),
    "olmo2": _PLAIN,
    "olmo3": _TYPED,
    "paddleocr_vl_text": _PLAIN,
    "persimmon": _PLAIN,
    "phi3": _PLAIN,
    "qwen2": _QWEN2,
    "qwen2_5_omni_text": _QWEN2,
    "qwen2_5_vl_text": _QWEN2,
    "qwen2_vl_text": _QWEN2,
    "qwen3": _QWEN2,
    "qwen3_5_moe_text": _QWEN3_5,
    "qwen3_5_text": _QWEN3_5,
    "qwen3_moe": _SPARSE,
    "qwen3_omni_moe_text": _SPARSE,
    "qwen3_vl_moe_text": _SPARSE,
    "qwen3_vl_text": _PLAIN,
    "smollm3": Decoder(
        lists=("no_rope_layers", "layer_types"), periods=("no_rope_layer_interval",)
    ),
    "step3p5": Decoder(
        lists=("layer_types", "mlp_layer_types", "swiglu_limits", "swiglu_limits_shared"),
        maps=("per_layer_config",),
    ),
}
_TEXT = (  # decoders that are models of their own
    *("cohere2", "deepseek_v3", "exaone4", "gemma", "gemma2", "gemma3_text", "glm4", "gpt_oss"),
    *("granite", "lfm2", "llama", "ministral3", "mistral", "mixtral", "olmo2", "olmo3", "phi3"),
    *("qwen2", "qwen3", "qwen3_5_text", "qwen3_moe", "smollm3"),
)


@dataclass(frozen=True)
class Family:
    """The decoders of a family, and its other fields that refer to decoder layers.

    Attributes:
        decoders: `model_type` of the text configuration; the first is the default.
        entries: top-level fields that list the layers before which visual features are added, as
            layers or as pairs that end in one.
        takes_images: False: the decoder alone, opened by AutoModelForCausalLM, with a tokenizer
            in place of a processor.
    """

    decoders: tuple[str, ...]
    entries: tuple[str, ...] = ()
    takes_images: bool = True

    @property
    def lists(self) -> tuple[str, ...]:
        """The fields with one entry per layer, of all its decoders."""
        return self._fields("lists")

    @property
    def maps(self) -> tuple[str, ...]:
        """The fields with settings by layer number, of all its decoders."""
        return self._fields("maps")

    @property
    def inside(self) -> tuple[str, ...]:
        """The attributes of the opened decoder with one entry per layer, of all its decoders."""
        return self._fields("inside")

    def _fields(self, rule: str) -> tuple[str, ...]:
        return tuple(sorted({n for kind in self.decoders for n in getattr(DECODERS[kind], rule)}))


FAMILIES = {
    "aria": Family(("aria_text",)),
    "aya_vision": Family(("cohere2",)),
    "cohere2_vision": Family(("cohere2",)),
    "cosmos3_edge": Family(("cosmos3_edge_text",)),
    "cosmos3_omni": Family(("qwen3_vl_text",)),
    "deepseek_vl": Family(("llama",)),
    "deepseek_vl_hybrid": Family(("llama",)),
    "ernie4_5_vl_moe": Family(("ernie4_5_vl_moe_text",)),
    "exaone4_5": Family(("exaone4",)),
    "fast_vlm": Family(("qwen2",)),
    "fuyu": Family(("persimmon",)),
    "gemma3": Family(("gemma3_text",)),
    "gemma4": Family(("gemma4_text",)),
    "gemma4_unified": Family(("gemma4_unified_text",)),
    "glm46v": Family(("glm4v_text",)),
    "glm4v": Family(("glm4v_text",)),
    "glm4v_moe": Family(("glm4v_moe_text",)),
    "glm_ocr": Family(("glm_ocr_text",)),
    "glmga": Family(("glm4v_text",)),
    "got_ocr2": Family(("qwen2",)),
    "granite4_vision": Family(
        ("granite4_vision_text",), entries=("deepstack_layer_map", "spatial_target_layers")
    ),
    "granite_docling": Family(("granite_docling_text",)),
    "hunyuan_vl": Family(("hunyuan_vl_text",)),
    "hyperclovax_vision_v2": Family(("hyperclovax",)),
    "idefics2": Family(("mistral",)),
    "idefics3": Family(("llama",)),
    "inkling_mm_model": Family(("inkling_text",)),
    "internvl": Family(("qwen2", "gpt_oss", "llama", "qwen3", "qwen3_moe")),
    "janus": Family(("llama",)),
    "kimi_k25": Family(("deepseek_v3", "kimi_k2")),
    "lfm2_vl": Family(("lfm2",)),
    "lfm3_vl": Family(("lfm3",)),
    "lighton_ocr": Family(("qwen3",)),
    "llava": Family(("llama", "mistral", "qwen2")),
    "llava_next": Family(("llama", "mistral")),
    "llava_next_video": Family(("llama",)),
    "llava_onevision": Family(("qwen2",)),
    "minicpm_ocr": Family(("qwen3_5_text",)),
    "minicpmv4_6": Family(("qwen3_5_text",)),
    "minicpmv4_7": Family(("qwen3_5_text",)),
    "minimax_m3_vl": Family(("minimax_m3_vl_text",)),
    "mistral3": Family(("mistral", "ministral3")),
    "molmo2": Family(("molmo2_text",)),
    "muse_glimmer": Family(("muse_glimmer_text",)),
    "ovis2": Family(("qwen2",)),
    "paddleocr_vl": Family(("paddleocr_vl_text",)),
    "paligemma": Family(("gemma", "gemma2")),
    "perception_lm": Family(("llama",)),
    "pp_chart2table": Family(("qwen2",)),
    "qianfan_ocr": Family(("qwen3",)),
    "qwen2_5_omni_thinker": Family(("qwen2_5_omni_text",)),
    "qwen2_5_vl": Family(("qwen2_5_vl_text",)),
    "qwen2_vl": Family(("qwen2_vl_text",)),
    "qwen3_5": Family(("qwen3_5_text",)),
    "qwen3_5_moe": Family(("qwen3_5_moe_text",)),
    "qwen3_omni_moe_thinker": Family(("qwen3_omni_moe_text",)),
    "qwen3_vl": Family(("qwen3_vl_text",)),
    "qwen3_vl_moe": Family(("qwen3_vl_moe_text",)),
    "smolvlm": Family(("llama",)),
    "step3p7": Family(("step3p5",)),
    "video_llama_3": Family(("qwen2",)),
    "video_llava": Family(("llama",)),
    "vipllava": Family(("llama",)),
} | {kind: Family((kind,), takes_images=False) for kind in _TEXT}

_ENCODER_DECODER = "is an encoder-decoder: each decoder layer reads the encoder by cross-attention"
_STREAMS = "passes several states per token between layers (hyper-connections); scores compare one"
_QUERIES = "has a decoder (OPT or T5) that no rule covers, beside a transformer of queries"
_KOSMOS = "counts and names the layers of its decoder in a way of its own that no rule covers"
_UNTRIED = "has not been tried: the tests have no tiny model of it"
REFUSED = {
    "blip": "reads the image by cross-attention in each layer of its decoder",
    "blip-2": _QUERIES,
    "chameleon": "masks image tokens in its logits, which the loss on answers does not",
    "cohere_compass": "generates other tokens with a cache than without one, in transformers 5.23",
    "deepseek_ocr2": _UNTRIED,
    "diffusion_gemma": "writes blocks of tokens by diffusion, not one token after another",
    "dots3_note": _UNTRIED,
    "emu3": _UNTRIED,
    "evolla": "takes proteins, not images",
    "florence2": _ENCODER_DECODER,
    "gemma3n": "packs weights of all layers in one tensor, and shares keys and values",
    "git": "has a decoder in the manner of BERT, which no rule covers",
    "glm5_next": _STREAMS,
    "idefics": "has cross-attention to images before every few layers, at fixed positions",
    "inkling2": "adds states of earlier layers at every so many layers, by the layer's number",
    "instructblip": _QUERIES,
    "instructblipvideo": _QUERIES,
    "kosmos-2": _KOSMOS,
    "kosmos-2.5": _KOSMOS,
    "llama4": "has no part without its head, on which states are measured",
    "mistral4": "is a decoder that takes no images",
    "mistral_large4": "shares keys and values, and choices of tokens, between layers",
    "mllama": "has layers that text without an image does not pass through",
    "muse_spark": "rounds by where its weights lie, so no reloaded model is the same to the bit",
    "nemotron_h_omni": "has layers of one kind each (state, attention, MLP), and no count of them",
    "pi0": "answers with movements of a robot, not with text",
    "pix2struct": _ENCODER_DECODER,
    "pp_formulanet": _ENCODER_DECODER,
    "qwen3_omni_moe": "is not opened by AutoModelForImageTextToText",
    "qwen4_exp": _STREAMS,
    "shieldgemma2": "is a classifier; AutoModelForImageTextToText does not find its weights",
    "t5gemma2": _ENCODER_DECODER,
    "udop": _ENCODER_DECODER,
    "unlimited_ocr": _UNTRIED,
    "vision-encoder-decoder": _ENCODER_DECODER,
}
