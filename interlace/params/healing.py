"""Parameters of fine-tuning and healing."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from pydantic import Field, field_validator, model_validator

from interlace.params.section import Attention, Dtype, Section, Seed, merged

Also = Literal["projector", "lm_head", "norms"]
Library = Literal["tensorboard", "dvclive"]


class Recipe(Section):
    """End-to-end training; the defaults are the published recipe (INTERLACE, section 4)."""

    epochs: float = Field(1.0, gt=0, le=10_000, description="passes over the training set, epochs")
    max_steps: int = Field(
        -1,
        ge=-1,
        description="stop after this many updates, steps; -1: epochs; 0: none at all",
    )
    learning_rate: float = Field(1e-5, gt=0, description="peak learning rate of AdamW, 1/step")
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="share of steps to warm up over")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay")
    also: tuple[Also, ...] = Field(
        (),
        description="weights that are trained beside the planned layers; projector: between vision"
        " tower and decoder; lm_head: where it is not tied to the embeddings, as INTERLACE's code"
        " did at 8B; norms: all of the decoder",
    )
    max_grad_norm: float = Field(1.0, gt=0, description="gradient norm to clip to")
    batch_size: int = Field(
        32, ge=1, le=65_536, description="rows per update, over all processes, rows"
    )
    micro_batch_size: int = Field(
        16,
        ge=1,
        le=65_536,
        description="rows per forward pass of one process; the rest is accumulated, rows",
    )
    max_length: int = Field(8192, ge=1, description="longer rows are cut at a turn, tokens")
    min_pixels: int | None = Field(
        784, ge=1, description="smallest image, pixels; none: processor's"
    )
    max_pixels: int | None = Field(
        50176, ge=1, description="cap on an image's size, pixels; none: processor's"
    )
    packing: bool = Field(
        True, description="lay samples end to end in rows, where the family allows; false: pad"
    )
    gradient_checkpointing: bool | Literal["auto"] = Field(
        True,
        description="recompute activations from the lowest tuned layer up, saves memory; auto: in"
        " passes whose activations would fill more than half of the memory that is free",
    )
    zero_stage: Literal[0, 2, 3] = Field(
        0, description="DeepSpeed ZeRO stage; 0: no DeepSpeed; the published runs: 3"
    )
    offload: Literal["none", "optimizer", "all"] = Field(
        "none", description="what ZeRO keeps in the CPU's memory; all: weights too, needs stage 3"
    )
    save_steps: int = Field(500, ge=1, description="updates between resume points, steps")
    log_steps: int = Field(
        10, ge=1, description="updates between points of the curve on disk, steps"
    )
    report_to: tuple[Library, ...] = Field(
        (),
        exclude=True,  # no result depends on it: nothing is done again
        description="libraries that show the curve while it grows, in logs/; tensorboard, dvclive",
    )
    workers: int = Field(4, ge=0, le=1024, description="data loading processes")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="type to compute in; auto: that of `dtype`, float32 where it is float16"
    )
    attn_implementation: Attention = "auto"
    lora_rank: int = Field(
        0,
        ge=0,
        le=8192,
        description="rank of adapters on the linears of tuned layers, merged when written;"
        " 0: whole layers (domain-aware paper: 32)",
    )
    lora_alpha: float = Field(
        64.0, gt=0, description="adapters are scaled by lora_alpha / lora_rank (domain-aware: 64)"
    )
    lora_dropout: float = Field(
        0.05, ge=0, lt=1, description="share of an adapter's inputs dropped (domain-aware: 0.05)"
    )

    @model_validator(mode="after")
    def _offload_has_a_stage(self) -> Recipe:
        needed = {"none": (0, 2, 3), "optimizer": (2, 3), "all": (3,)}[self.offload]
        if self.zero_stage not in needed:
            stages = " or ".join(map(str, needed))
            raise ValueError(f"offload = {self.offload} needs zero_stage = {stages}")
        return self

    @field_validator("also", "report_to")
    @classmethod
    def _names_are_different(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if repeated := [name for name, times in Counter(names).items() if times > 1]:
            raise ValueError(f"{repeated[0]} is named twice")
        return names

    @model_validator(mode="after")
    def _also_is_trained_whole(self) -> Recipe:
        if self.also and (self.lora_rank or not self.max_steps):
            name = "lora_rank" if self.lora_rank else "max_steps"
            remedy = "set lora_rank to 0" if self.lora_rank else "set max_steps to -1"
            raise ValueError(
                f"also = [{', '.join(self.also)}] trains whole weights end to end, and {name} ="
                f" {getattr(self, name)}; {remedy}, or also to []"
            )
        return self


class Heal(Section):
    """Healing beyond the recipe: local healing before it, distillation in it."""

    local_steps: int = Field(
        0, ge=0, description="updates of local healing before end-to-end training, steps; 0: none"
    )
    local_learning_rate: float = Field(
        1e-3, gt=0, description="peak learning rate of AdamW in local healing, 1/step"
    )
    distill_logits: float = Field(
        0.0, ge=0, description="weight of the divergence from the dense model's answers; 0: off"
    )
    distill_states: float = Field(
        0.0,
        ge=0,
        description="weight of the anchors' relative squared error to the dense model; 0: off",
    )
    temperature: float = Field(
        1.0, gt=0, description="distill_logits: both models' logits are divided by this"
    )


class Finetune(Recipe, Heal):
    """The options of healing: locally, end to end, or one after the other."""


class ReferenceParams(Section):
    """`reference`: tune the dense model by the same recipe."""

    seed: Seed
    dtype: Dtype
    finetune: Recipe = Recipe()

    @property
    def recipe(self) -> Recipe:
        """The recipe, with the type to compute in."""
        return merged(Recipe, self.finetune, dtype=self._computing_dtype)

    @property
    def _computing_dtype(self) -> str:
        if self.finetune.dtype != "auto":
            return self.finetune.dtype
        return "float32" if self.dtype == "float16" else self.dtype


class FinetuneParams(ReferenceParams):
    """`finetune`: heal the pruned model."""

    heal: Heal = Heal()

    @property
    def finetune_options(self) -> Finetune:
        """All of them together."""
        return merged(Finetune, self.recipe, self.heal)
