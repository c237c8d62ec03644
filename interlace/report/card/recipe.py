"""Lines of a model card about how the checkpoint was made."""

from __future__ import annotations

from interlace.params.healing import Heal, Recipe
from interlace.params.inputs import Data
from interlace.pruning.report import CompensationReport, HealedReport
from interlace.report.facts.decision import layers_text, listed, percent
from interlace.report.facts.run import Run
from interlace.scores.table import CKA, MATH, NONMATH, POOLED

DISTILLED = {"distill_logits": "logits", "distill_states": "anchors' hidden states"}
ALSO = {
    "projector": "the projector",
    "lm_head": "the output head",
    "norms": "the decoder's norms",
}
PROBED = {MATH, NONMATH, POOLED, CKA}  # criteria that are measured on probes


def calibration_text(run: Run) -> str:
    """Say what the scores were measured on; empty where the method reads none."""
    needs = set(run.rule.needs)
    if needs & PROBED:
        return f"{run.params.probes.per_task:,} probes of each task, on images of the data"
    return f"{run.rows['calibration']:,} rows, drawn from the data" if needs else ""


def data_share(data: Data) -> str:
    """Say which share of the data set was drawn, as `1% of `; empty for all of it."""
    share = f"{percent(data.share)} of " if data.share != 1 else ""
    weighted = "weighted " if data.weights else ""
    subsets = f"{', '.join(data.subsets)} in " if data.subsets else ""
    return f"{weighted}{share}{subsets}"


def trained_text(run: Run) -> str:
    """Say what was trained: `6 of the remaining layers and the projector`; empty for nothing."""
    layers = len(run.plan.tune)
    kind = "the remaining layers" if run.plan.drop else "them"
    return _and([f"{layers} of {kind}"] * bool(layers) + _also(run.params.finetune))


def _also(recipe: Recipe) -> list[str]:
    return [words for name, words in ALSO.items() if name in recipe.also]


def _and(phrases: list[str]) -> str:
    *first, last = phrases or [""]
    return f"{', '.join(first)} and {last}" if first else last


def training_text(run: Run) -> str:
    """Say in one line how layers were trained."""
    recipe, heal = run.params.finetune, run.params.heal
    steps = []
    if heal.local_steps:
        steps.append(
            f"{heal.local_steps:,} steps of {recipe.batch_size} rows layer by layer against"
            f" the dense model, learning rate {heal.local_learning_rate:g}"
        )
    if recipe.max_steps:
        steps.append(_end_to_end(recipe, heal))
    trained = _and(["the layers listed above"] * bool(run.plan.tune) + _also(recipe))
    return f"only {trained}: {'; then '.join(steps) or 'no update'}"


def _end_to_end(recipe: Recipe, heal: Heal) -> str:
    steps, epochs, rank = recipe.max_steps, recipe.epochs, recipe.lora_rank
    length = f"{steps:,} steps" if steps > 0 else f"{epochs:g} epoch{'s' * (epochs != 1)}"
    adapters = f", LoRA of rank {rank}, merged" if rank else ""
    targets = [target for name, target in DISTILLED.items() if getattr(heal, name)]
    distilled = f" and distillation of the dense model's {' and '.join(targets)}" if targets else ""
    return (
        f"{length} of {recipe.batch_size} rows, AdamW, learning rate"
        f" {recipe.learning_rate:g}{adapters}, loss on the answers{distilled}"
    )


def healed_text(healed: HealedReport | None, batch_size: int) -> str:
    """Say which layers were healed between rounds, and how; empty where none were."""
    if healed is None:
        return ""
    times = f"{healed.rounds} times " if healed.rounds > 1 else ""
    return (
        f"{layers_text(healed.layers)}: {times}{healed.steps:,} steps of {batch_size} rows layer by"
        " layer against the dense model"
    )


def compensation_text(compensation: CompensationReport) -> str:
    """Say which dropped layers were folded where, and which layers after them were fitted."""
    phrases = [
        f"{listed(cut.cut)} folded into {cut.folded_into} (residual {cut.residual_before:.3g}"
        f" to {cut.residual_after:.3g})"
        for cut in compensation.cuts
        if cut.kept and cut.cut
    ]
    refused = [listed(cut.cut) for cut in compensation.cuts if cut.cut and not cut.kept]
    phrases += [f"{', '.join(refused)} not folded: no help"] if refused else []
    later = [cut.end - 1 for cut in compensation.cuts if cut.kept and not cut.cut]
    phrases += [f"later layers fitted anew: {listed(later)}"] if later else []
    return f"{compensation.method}: {'; '.join(phrases)}"
