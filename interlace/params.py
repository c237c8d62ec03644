"""What a user can set: one frozen model per stage, unknown keys refused.

`params.yaml` is read as `Params`. A stage sees its own part of it and nothing else, so that it
cannot depend on a value that DVC does not track for it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from interlace.benchmark_names import key
from interlace.errors import InputError, validation_message

S = TypeVar("S", bound="Section")
Rating = Literal["relevance", "image_correspondence", "visual_dependency", "formatting"]
FINEVISION = "HuggingFaceM4/FineVision"  # on the hub
RATINGS: tuple[Rating, ...] = get_args(Rating)  # FineVision's, of every turn


class Section(BaseModel):
    """A frozen group of parameters that accepts no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Model(Section):
    """The dense model."""

    id: str = Field(description="hub id (org/name) or local folder of the dense model")
    revision: str | None = Field(None, description="hub revision; none: the newest, then pinned")
    trust_remote_code: bool = Field(False, description="let the model's own Python code run")


class Data(Section):
    """The fine-tuning set and the calibration set drawn from it."""

    id: str = Field(
        description="hub id, or local Parquet file or folder, in the schema of FineVision, ChartQA,"
        " TextVQA or ScienceQA"
    )
    revision: str | None = Field(None, description="hub revision; none: the newest, then pinned")
    subsets: tuple[str, ...] = Field((), description="subsets to draw from, by name; none: all")
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="factors on data.fraction by subset; one becomes a share of 1 at most"
    )
    fraction: float | None = Field(
        None,
        gt=0,
        le=1,
        description=f"share of every subset's rows to draw; none: as INTERLACE drew, 0.01 of"
        f" {FINEVISION} and all of any other data set",
    )
    group_share: float = Field(
        0.6,
        gt=0,
        le=1,
        description="share of the rows of a row group to draw before another group is read: bytes"
        " read over bytes kept come to about 1 / share, and less of it spreads the draw wider",
    )
    calibration_fraction: float = Field(
        0.1, gt=0, le=1, description="share of the training rows to calibrate on (INTERLACE: 0.1)"
    )
    max_images: int = Field(3, ge=0, description="rows with more images are left out, images")
    max_turns: int = Field(3, ge=1, description="turns after this one are cut off, user turns")
    max_image_pixels: int = Field(
        50_000_000,
        ge=1,
        le=89_478_485,
        description="rows with a larger image are left out, pixels; Pillow's own bound is the most",
    )
    min_ratings: dict[Rating, int] = Field(
        {}, description="rows rated lower are left out, by kind of rating; FineVision: 1 to 5"
    )
    workers: int = Field(
        8, ge=1, description="subsets to read at a time; does not change what is drawn"
    )

    @property
    def share(self) -> float:
        """Share of every subset's rows to draw, before weights: 0 to 1."""
        if self.fraction is not None:
            return self.fraction
        return 0.01 if self.id == FINEVISION else 1.0


class Probes(Section):
    """Domain probes: instructions paired with images (arXiv 2603.20275, section 3)."""

    prompts: str = Field(
        "data/probes.yaml", description="YAML file of the tasks: name, domain and instruction"
    )
    per_task: int = Field(
        0, ge=0, description="probes of each task, samples; 0: no probes (published: 1000)"
    )
    math_sources: tuple[str, ...] = Field(
        (), description="sources of the training set whose images the math tasks are asked about"
    )
    nonmath_sources: tuple[str, ...] = Field(
        (), description="sources of the training set whose images the other tasks are asked about"
    )


class Collect(Section):
    """One pass over the calibration set."""

    mode: Literal["residual", "reference"] = Field(
        "residual",
        description="residual: true inputs and outputs of every layer; reference: as published, "
        "from output_hidden_states, last layer unscored",
    )
    batch_tokens: int = Field(8192, ge=1, description="padded tokens per batch, tokens")
    max_span: int | None = Field(
        None, ge=3, description="longest span to score, layers; none: every span"
    )
    max_length: int = Field(
        8192, ge=1, description="longest prompt, tokens; samples with longer ones are left out"
    )
    max_bad: int = Field(
        10,
        ge=0,
        description="samples that may be left out because they cannot be read, samples; one more"
        " stops the run",
    )
    max_pixels: int | None = Field(
        None, ge=1, description="cap on an image's size, pixels; none: the processor's own"
    )
    pooled: Literal["all", "probes", "none"] = Field(
        "probes",
        description="samples to keep mean-pooled states of: 4 x layers x width bytes each",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 on a GPU, float32 on a CPU"
    )
    device_map: Literal["none", "auto"] = Field(
        "none",
        description="none: the whole model on each process's device; auto: spread over all GPUs,"
        " for a model that one cannot hold (one process only; other stages use one GPU)",
    )
    attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2"] = Field(
        "auto",
        description="attention of transformers; auto: flash_attention_2 on a GPU where flash-attn"
        " is installed and the dtype has 16 bits, else the model's own choice, sdpa if it has it",
    )

    def opening(self) -> dict[str, str]:
        """How to open the model, as `sources.open_model` takes it."""
        return self.model_dump(include={"dtype", "device_map", "attn_implementation"})


class Answers(Section):
    """How calibration rows with answers are read, and in which precision they are measured."""

    batch_tokens: int = Field(8192, ge=1, description="padded tokens per batch, tokens")
    max_length: int = Field(8192, ge=1, description="longer rows are cut at a turn, tokens")
    max_pixels: int | None = Field(
        None, ge=1, description="cap on an image's size, pixels; none: the processor's own"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 on a GPU, float32 on a CPU"
    )


class Sensitivity(Answers):
    """What sleb and taylor need: the loss on answers, as layers go or weights move."""

    max_ratio: float = Field(
        0.4, gt=0, lt=1, description="share of the layers that sleb removes; serves smaller ratios"
    )
    samples: int = Field(128, ge=1, description="calibration rows to measure on, samples")


class Protection(Section):
    """Layers that are never dropped nor grouped."""

    protect_first: int | Literal["auto"] = Field(
        "auto",
        description="leading layers never dropped, layers; auto: the DeepStack layers, and at"
        " least those that the method's paper protects",
    )
    protect_last: int | Literal["auto"] = Field(
        "auto",
        description="trailing layers never dropped, layers; auto: as the method's paper has it",
    )

    @field_validator("protect_first", "protect_last")
    @classmethod
    def _not_negative(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 0:
            raise ValueError("must be 0 or more, or auto")
        return value


class Select(Protection):
    """How layers are chosen."""

    base: Literal["auto", "all", "prunable"] = Field(
        "auto",
        description="layers that the ratio is a share of: all, or those not protected; auto: as"
        " the method's paper has it",
    )
    shortfall: Literal["pairs", "fewer", "error"] = Field(
        "pairs", description="what to do when disjoint triplets run out before K drops"
    )
    alpha: float = Field(
        0.7, ge=0, le=1, description="mixed: weight of the non-math ranking, the rest is math"
    )
    rounds: int = Field(
        1, ge=1, description="prune in so many steps, measuring again after each, rounds"
    )
    drop: tuple[int, ...] = Field((), description="manual: the layers to drop, 0-based")
    tune: tuple[int, ...] = Field((), description="manual: the layers to tune, 0-based")
    tuned: Literal["planned", "spaced", "anchors", "all", "none"] = Field(
        "planned",
        description="survivors that are tuned; planned: as the method says; spaced: as many, evenly"
        " over the survivors",
    )
    heal_steps: int = Field(
        0,
        ge=0,
        description="updates of local healing before each further round's measurement, steps;"
        " 0: none",
    )

    def asked(self) -> dict[str, Any]:
        """What `plan.select` takes of it, by name; the rest is about measuring."""
        return self.model_dump(exclude={"heal_steps"})


class Budget(Section):
    """What `ratio: auto` has to reach; exactly one of them is set."""

    params: float | None = Field(
        None, gt=0, lt=1, description="largest share of the dense model's parameters to keep"
    )
    ttft_speedup: float | None = Field(
        None, gt=1, description="least speedup of the first token, dense time / pruned time"
    )
    retention: float | None = Field(
        None,
        gt=0,
        le=100,
        description="least accuracy on calibration answers before tuning, percent of dense",
    )

    def target(self) -> tuple[str, float]:
        """The budget that is set, and its value.

        Raises:
            InputError: none or several are set.
        """
        given = [(name, value) for name, value in self if value is not None]
        if len(given) != 1:
            said = ", ".join(f"budget.{name} = {value}" for name, value in given) or "none is set"
            raise InputError(
                "ratio = auto needs exactly one of budget.params, budget.ttft_speedup and"
                f" budget.retention: {said}"
            )
        return given[0]


class Compensation(Section):
    """Making up for dropped layers without training."""

    compensate: Literal["none", "lstsq"] = Field(
        "none",
        description="lstsq: fold a least-squares map into the layer before each run of dropped"
        " ones, where held-out answers get likelier by it",
    )
    compensate_samples: int = Field(
        512,
        ge=4,
        description="calibration rows for that, samples; a quarter of them is held out",
    )


class Export(Compensation):
    """How the pruned checkpoint is written."""

    max_shard_mb: int = Field(4096, ge=1, description="largest weight file, MiB")
    dtype: Literal["keep", "bfloat16", "float16", "float32"] = Field(
        "keep", description="what weights are stored as; keep: each as in the dense checkpoint"
    )
    parity_samples: int = Field(
        4,
        ge=0,
        description="calibration rows on which the written model must be the dense one without the"
        " layers, bit for bit, samples; 0: it is not checked",
    )
    sparsity_samples: int = Field(
        128, ge=1, description="wanda-2:4: calibration rows to measure inputs on, samples"
    )


class Recipe(Section):
    """End-to-end training; the defaults are the published recipe (INTERLACE, section 4)."""

    epochs: float = Field(1.0, gt=0, description="passes over the training set, epochs")
    max_steps: int = Field(
        -1,
        ge=-1,
        description="stop after this many updates, steps; -1: epochs; 0: none at all",
    )
    learning_rate: float = Field(1e-5, gt=0, description="peak learning rate of AdamW, 1/step")
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="share of steps to warm up over")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay")
    max_grad_norm: float = Field(1.0, gt=0, description="gradient norm to clip to")
    batch_size: int = Field(32, ge=1, description="rows per update, over all processes, rows")
    micro_batch_size: int = Field(
        16, ge=1, description="rows per forward pass of one process; the rest is accumulated, rows"
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
    zero_stage: Literal[0, 2, 3] = Field(3, description="DeepSpeed ZeRO stage; 0: no DeepSpeed")
    offload: Literal["none", "optimizer", "all"] = Field(
        "none", description="what ZeRO keeps in the CPU's memory; all: weights too, needs stage 3"
    )
    save_steps: int = Field(500, ge=1, description="updates between resume points, steps")
    log_steps: int = Field(10, ge=1, description="updates between points of the curve, steps")
    workers: int = Field(4, ge=0, description="data loading processes")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 on a GPU, float32 on a CPU"
    )
    lora_rank: int = Field(
        0,
        ge=0,
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


class Finetune(Recipe):
    """Healing: by layer, end to end, or one after the other."""

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


class Judge(Section):
    """A model that judges answers, behind an endpoint with OpenAI's chat completions."""

    url: str | None = Field(
        None, description="address of the endpoint, e.g. http://localhost:8000/v1; none: no judge"
    )
    model: str | None = Field(None, description="the model to ask there")
    key_variable: str | None = Field(
        None, description="environment variable that holds the endpoint's key; none: no key"
    )


class Evaluate(Section):
    """Benchmarks, run through lmms-eval."""

    benchmarks: tuple[str, ...] = Field((), description="published benchmarks by name, e.g. AI2D")
    data: str | None = Field(
        None,
        description="local folder that holds the benchmarks' data by name (AI2D.parquet, or a"
        " folder AI2D as on the hub); none: from the hub",
    )
    heldout: str | None = Field(
        None, description="Parquet file in FineVision's schema; each of its sources is a benchmark"
    )
    judged: tuple[str, ...] = Field(
        (), description="such files of open questions, whose answers the judge grades"
    )
    judge: Judge = Field(Judge(), description="who judges answers to open questions")
    limit: int | None = Field(None, ge=1, description="rows per benchmark, rows; none: all")
    batch_size: int = Field(16, ge=1, description="prompts generated together, prompts")
    max_new_tokens: int = Field(
        50,
        ge=1,
        description="longest answer, tokens (INTERLACE: 50, or 16384 with reasoning)",
    )
    max_pixels: int | None = Field(
        None, ge=1, description="cap on an image's size, pixels; none: the processor's own"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 on a GPU, float32 on a CPU"
    )


RequestShape = Literal[
    "AI2D",
    "ChartQA",
    "OCRBench",
    "TextVQA",
    "MMBench",
    "POPE",
    "RealWorldQA",
    "HRBench4K",
    "HRBench8K",
    "VStar",
    "MIABench",
    "ScienceQA",
]


def _shape(value: Any) -> Any:
    """A benchmark's name as `evaluate.benchmarks` takes it: V*, MIA-Bench."""
    known = {key(name): name for name in get_args(RequestShape)}
    return known.get(key(value), value) if isinstance(value, str) else value


class Ttft(Section):
    """Time to first token, and end to end."""

    shapes: tuple[Annotated[RequestShape, BeforeValidator(_shape)], ...] = Field(
        (),
        description="benchmarks whose typical request is timed, by name, e.g. AI2D; none: rows of"
        " the calibration set",
    )
    requests: int = Field(
        8, ge=1, description="calibration rows to send, spread over their sources, requests"
    )
    batch_sizes: tuple[PositiveInt, ...] = Field(
        (), description="batches of one prompt, repeated, to time beside single ones, prompts"
    )
    new_tokens: int = Field(
        8, ge=1, description="length of every answer, for decode and end to end, tokens"
    )
    repeats: int = Field(5, ge=1, description="timed dense and pruned pairs per request, pairs")
    warmup: int = Field(2, ge=0, description="untimed pairs per request shape, pairs")
    confidence: float = Field(0.95, gt=0, lt=1, description="level of the bootstrap interval")
    max_interval: float = Field(
        0.1,
        gt=0,
        description="widest interval of a speedup that is reported, share of the speedup",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 on a GPU, float32 on a CPU"
    )


Seed = Annotated[int, Field(0, ge=0, description="seed of every random draw")]


def _ratio(value: Any) -> float | Literal["auto"]:
    """One complaint for whatever is wrong with a ratio."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not 0 < number < 1:
        raise ValueError("must be greater than 0 and less than 1, or auto")
    return number


Ratio = Annotated[
    float | Literal["auto"],
    PlainValidator(_ratio),
    Field(
        0.25,
        description="share of decoder layers to drop, K = floor(ratio * L); auto: by the budget",
    ),
]
Reference = Annotated[
    Literal["none", "dense-ft", "dense-sft"],
    Field(
        "none",
        description="the dense model tuned by the same recipe, to be compared with; dense-ft: its"
        " last layers, as many as the ratio or budget is of all; dense-sft: all its layers",
    ),
]
Method = Annotated[
    str, Field("interlace", description="how layers are chosen; `interlace methods` lists them")
]


class SampleParams(Section):
    """`sample`: draw the training and calibration sets."""

    seed: Seed
    data: Data
    probes: Probes = Probes()


class CollectParams(Section):
    """`collect`: measure how layers change the hidden states."""

    collect: Collect = Collect()


class SensitivityParams(Section):
    """`sensitivity`: measure what sleb or taylor needs; nothing for other methods."""

    method: Method
    select: Protection = Protection()
    sensitivity: Sensitivity = Sensitivity()


class ScoreParams(Section):
    """`score`: average the measurements."""


class BudgetParams(Section):
    """`budget`: find how many layers `ratio: auto` drops; nothing for a ratio that is given."""

    ratio: Ratio
    method: Method
    seed: Seed
    select: Select = Select()
    sensitivity: Sensitivity = Sensitivity()
    ttft: Ttft = Ttft()
    budget: Budget = Budget()


class RoundsParams(Section):
    """`rounds`: prune in steps and measure again; nothing for a single round."""

    ratio: Ratio
    method: Method
    seed: Seed
    select: Select = Select()
    collect: Collect = Collect()
    sensitivity: Answers = Answers()
    export: Compensation = Compensation()
    finetune: Finetune = Finetune()


class SelectParams(Section):
    """`select`: decide which layers go."""

    ratio: Ratio
    method: Method
    seed: Seed
    select: Select = Select()


class ExportParams(Section):
    """`export`: write the pruned checkpoint."""

    sensitivity: Answers = Answers()
    export: Export = Export()


class FinetuneParams(Section):
    """`finetune`: heal the pruned model."""

    seed: Seed
    finetune: Finetune = Finetune()


class ReferencePlanParams(Section):
    """`reference_plan`: say which layers of the dense model the reference run tunes."""

    ratio: Ratio
    reference: Reference


class ReferenceParams(Section):
    """`reference`: tune the dense model by the same recipe."""

    seed: Seed
    finetune: Recipe = Recipe()


class EvaluateParams(Section):
    """`evaluate`: score one model on the benchmarks."""

    evaluate: Evaluate = Evaluate()


class TtftParams(Section):
    """`ttft`: time the dense and the tuned model side by side."""

    seed: Seed
    ttft: Ttft = Ttft()


class PinParams(
    SampleParams,
    CollectParams,
    SensitivityParams,
    BudgetParams,
    SelectParams,
    ExportParams,
    FinetuneParams,
    ReferencePlanParams,
    EvaluateParams,
    TtftParams,
):
    """`pin`: check everything that can be checked, and pin the model and the data."""

    sensitivity: Sensitivity = Sensitivity()
    select: Select = Select()
    export: Export = Export()
    model: Model
    launch: str = Field(
        "python -m", description="command prefix of collect, finetune, reference and evaluate"
    )


class ReportParams(PinParams):
    """`report`: gather the numbers; the model card embeds every parameter."""


Params = PinParams  # all of them


def read_params(path: Path) -> Params:
    """Read and check a whole parameter file.

    Raises:
        InputError: the file is missing, is not YAML, or a value in it is not allowed.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; copy params.yaml or one from profiles/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable text file ({error})") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return validated(Params, values, str(path))


def validated(model: type[S], values: Any, where: str) -> S:
    """Check plain values against a parameter model.

    Raises:
        InputError: one line with every wrong field, its value and the reason.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected keys and values, found {type(values).__name__}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(validation_message(where, error)) from None


def part(whole: Params, model: type[S]) -> S:
    """The part of all parameters that one stage may read."""
    return model.model_validate({name: getattr(whole, name) for name in model.model_fields})
