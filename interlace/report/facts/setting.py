"""Differences between the setting of a run and that of a published number, in plain words.

Sources: INTERLACE (arXiv 2511.19676) with its code and model cards, and the domain-aware paper
(arXiv 2603.20275). Where a source is silent, nothing is compared. Each difference begins with what
differs; "here" is this run, "there" the published one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from interlace.evaluation.benchmarks.catalogue import BENCHMARKS
from interlace.model.sampling import PUBLISHED
from interlace.params.choosing import Select
from interlace.params.evaluating import key
from interlace.params.inputs import FINEVISION
from interlace.params.whole import Params

Row = Mapping[str, str]  # of data/published.csv
DOMAIN_AWARE = "2603.20275"  # the other source is INTERLACE: its paper and its model cards
SAMPLED = (
    f"temperature {PUBLISHED.temperature}, top-p {PUBLISHED.top_p}, top-k {PUBLISHED.top_k} and"
    f" presence penalty {PUBLISHED.presence_penalty}"
)
LENGTHS = {"on": 16_384, "off": 50}  # longest published answers, tokens
LENGTH = "length: "
BY_SIMILARITY = {"interlace", "interlace-oa", "interlace-tn", "consecutive"}  # mode reference
BY_PROBES = {"math-aware", "nonmath-aware", "mixed"}  # mode residual
DEEPSTACK_LAYERS = 3  # of Qwen3-VL, which all numbers are of
RECIPE = {
    "epochs": 1.0,
    "max_steps": -1,
    "learning_rate": 1e-5,
    "warmup_ratio": 0.03,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "batch_size": 32,
    "max_length": 8192,
    "min_pixels": 784,
    "max_pixels": 50_176,
    "lora_rank": 0,
}
ADAPTERS = {
    "epochs": 1.0,
    "max_steps": -1,
    "learning_rate": 2e-5,
    "weight_decay": 0.1,
    "batch_size": 64,
    "max_length": 8192,
    "lora_rank": 32,
    "lora_alpha": 64.0,
    "lora_dropout": 0.05,
}
HEALING = {"local_steps": 0, "distill_logits": 0.0, "distill_states": 0.0}


def setting_differences(
    row: Row, params: Params, names: Sequence[str], share: float = 0.01
) -> tuple[str, ...]:
    """List what differs between a run and the setting of a published score or retention.

    Args:
        row: of the same model, method and ratio.
        params: of the run.
        names: the run's benchmarks behind the number that is compared.
        share: of FineVision that INTERLACE's number was tuned on.
    """
    pruned = float(row["ratio"]) > 0 and not row["method"].endswith("2:4")
    texts = [*_of_answers(row, params, names)]
    if pruned:
        texts += _of_choice(row, params)
    if pruned or row["method"].startswith("dense-"):
        texts += _of_tuning(row, params, share, pruned)
    return tuple(texts)


def _of_answers(row: Row, params: Params, names: Sequence[str]) -> Iterator[str]:
    evaluate = params.evaluate
    direct = evaluate.answers == "direct"
    if row["paper"] == DOMAIN_AWARE:
        yield f"prompt: {'lmms-eval' if direct else 'VLMEvalKit'}'s here, the paper's own there"
    else:
        if direct:
            yield (
                "prompt: lmms-eval's here, which asks for the answer directly; VLMEvalKit's there,"
                " which does not"
            )
            yield f"sampling: greedy here; {SAMPLED} there"
        benchmarks = [BENCHMARKS[name] for name in names if name in BENCHMARKS]
        yield from (benchmark.difference for benchmark in benchmarks if benchmark.difference)
    longest = LENGTHS.get(row["cot"])
    if longest and longest != evaluate.longest:
        yield (f"{LENGTH}answers of at most {evaluate.longest:,} tokens here, {longest:,} there")
    if evaluate.limit:
        yield f"subset: the first {evaluate.limit:,} rows of each benchmark here, all there"
    if evaluate.max_pixels:
        yield f"images of benchmarks: at most {evaluate.max_pixels:,} pixels here"


def _of_choice(row: Row, params: Params) -> Iterator[str]:
    measure, select, method = params.measure, params.select, row["method"]
    mode = params.collect.mode
    if method in BY_SIMILARITY:
        if mode != "reference":
            yield f"scores: collect.mode = {mode} here, reference there"
        yield "scores: cosines in float32 here, in bfloat16 there"
    if method in BY_PROBES and mode != "residual":
        yield f"scores: collect.mode = {mode} here, residual there"
    if method in BY_SIMILARITY | BY_PROBES and measure.max_pixels:
        yield f"scores: images of at most {measure.max_pixels:,} pixels here, uncapped there"
    share = params.data.calibration_fraction
    if method in BY_SIMILARITY and share != 0.1:
        yield f"scores: calibrated on {share:.4g} of the training rows here, on 0.1 there"
    ends = (1, 1) if row["paper"] == DOMAIN_AWARE else (0, 0)
    theirs = f"the first {ends[0]} and the last {ends[1]}"
    if method != "sleb" and (ours := _protected(select, ends[1], theirs)) != theirs:
        yield f"protected layers: {ours} here, {theirs} there"
    if select.base != "auto":
        yield f"ratio: a share of {select.base} layers here, as the paper counts there"
    if select.rounds > 1:
        yield f"rounds: {select.rounds} here, 1 there"
    if select.candidates:
        yield "choice: the best of several plans after healing here, the method's own plan there"
    if params.export.compensate != "none":
        yield f"compensation: {params.export.compensate} here, none there"


def _protected(select: Select, last_in_paper: int, as_published: str) -> str:
    """Say which layers are protected here."""
    if select.protect == "none":
        return as_published
    if select.protect != "auto":
        return str(list(select.protect))
    first = DEEPSTACK_LAYERS if select.protect_first == "auto" else select.protect_first
    last = last_in_paper if select.protect_last == "auto" else select.protect_last
    return f"the first {first}, the last {last} and those around attention sinks"


def _of_tuning(row: Row, params: Params, share: float, pruned: bool) -> Iterator[str]:
    data = params.data
    domain_aware = row["paper"] == DOMAIN_AWARE
    trimmed = data.subsets or data.weights or data.min_ratings
    if domain_aware:
        their_data = "100,000 math and 100,000 general samples"
    else:
        their_data = f"{100 * share:g}% of FineVision"
    if domain_aware or trimmed or data.id != FINEVISION or abs(data.share - share) > 1e-9:
        source = Path(data.id).name if data.id.startswith("/") else data.id
        qualifier = " in part" if trimmed else ""
        yield f"tuning data: {100 * data.share:g}% of {source}{qualifier} here, {their_data} there"
    published: dict[str, object] = {**(ADAPTERS if domain_aware else RECIPE)}
    if not domain_aware:  # the published code trains the 8B's head
        published["also"] = ("lm_head",) if key(row["model"]) == "qwen3vl8b" else ()
    settings = {f"finetune.{name}": value for name, value in published.items()}
    if pruned:
        settings |= {f"heal.{name}": value for name, value in HEALING.items()}
        settings["select.tuned"] = "all" if domain_aware else "planned"
    for name, value in settings.items():
        section, field = name.split(".")
        ours = getattr(getattr(params, section), field)
        if ours != value:
            yield f"tuning: {name} = {_written(ours)} here, {_written(value)} there"


def _written(value: object) -> str:
    return f"[{', '.join(value)}]" if isinstance(value, tuple) else str(value)
