"""Numbers and names in words, for the terminal, the cards and the page."""

from __future__ import annotations

from collections.abc import Sequence

from interlace.evaluation.scores.result import Evaluation, Reasoning, Score
from interlace.report.facts.summary import Metrics
from interlace.samples.own_answers import AnswerSheet

NONE = "\u2013"


def spelled(reference: str) -> str:
    """Spell a reference's name for people: Dense-FT."""
    kind = reference.rsplit("_", 1)[-1]
    return f"Dense-{kind.upper()}"


def device_name(name: str) -> str:
    """Name a device in words."""
    return "a CPU" if name == "cpu" else name


def measured_by(evaluation: Evaluation) -> str:
    """Say what answered an evaluation: a model on a device or servers, perhaps with reasoning."""
    if engine := evaluation.engine:
        version = f", version {engine.version}" if engine.version else ""
        source = f"by {engine.command or 'a server'}{version}"
    else:
        source = f"on {device_name(evaluation.device or NONE)} in {evaluation.dtype}"
    return f"{source}; {reasoned_by(how)}" if (how := evaluation.reasoning) else source


def reasoned_by(how: Reasoning) -> str:
    """Say how benchmarks were answered with reasoning."""
    return (
        f"benchmarks answered with reasoning in at most {how.max_new_tokens:,} tokens, sampled"
        f" (temperature {how.temperature:g}, top-p {how.top_p:g}, top-k {how.top_k}, presence"
        f" penalty {how.presence_penalty:g}, seed {how.seed})"
    )


def sample_counts(scores: Sequence[Score | None]) -> str:
    """Count the rows that models answered: one number, or a range."""
    counts = sorted({score.n for score in scores if score})
    if not counts:
        return NONE
    return " to ".join(f"{n:,}" for n in dict.fromkeys((counts[0], counts[-1])))


def size(parameters: float) -> str:
    """Format a number of parameters to three digits: 8.77B, 3.82M."""
    for unit, scale in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if parameters >= scale:
            return f"{parameters / scale:.2f}{unit}"
    return str(int(parameters))


def parameter_sizes(summary: Metrics) -> tuple[str, str, str]:
    """Format the parameters of the dense and the pruned model, and the change in percent."""
    dense, pruned = summary["parameters_before"], summary["parameters_after"]
    return size(dense), size(pruned), f"{100 * (pruned / dense - 1):+.1f}%"


def speedup_text(speedup: float | None, low: float | None, high: float | None) -> str:
    """Return a speedup with its interval, as `1.21x (1.17x to 1.25x)`.

    Args:
        speedup: None where the interval is too wide to name one.
        low: end of the interval; None where there is none.
        high: the other end.
    """
    if low is None or high is None:
        return times_text(speedup)
    interval = f"{low:.2f}x to {high:.2f}x"
    return f"uncertain: {interval}" if speedup is None else f"{times_text(speedup)} ({interval})"


def times_text(value: float | None) -> str:
    """Return a ratio: 1.21x."""
    return NONE if value is None else f"{value:.2f}x"


def training_answers(sheet: AnswerSheet) -> str:
    """Say whose answers the rows were trained on, and how many of them are cut."""
    if sheet.source == "labels":
        return "the data's own"
    choice = f"sampled at temperature {sheet.temperature:g}" if sheet.temperature else "greedy"
    served = f", served as {sheet.model}" if sheet.model else ""
    rows = f"{sheet.rows:,} rows of {sheet.prompts:,} prompts"
    cut = f"{sheet.cut:,} ({100 * sheet.cut_share:.1f}%) cut at {sheet.max_new_tokens:,} tokens"
    return f"the dense model's own{served}, {choice}: {rows}, {cut}"
