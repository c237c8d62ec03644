"""What a model card says of the checkpoint: sections, each a list of paragraphs in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interlace.evaluation.scores.result import Score
from interlace.plan.record import Plan
from interlace.plan.removals import PaperRule
from interlace.report.facts.decision import asked, notes, percent
from interlace.report.facts.run import PLACEHOLDER, Which
from interlace.report.facts.summary import benchmarks_of, references_in
from interlace.report.facts.wording import NONE, device_name, sample_counts, size, spelled

if TYPE_CHECKING:
    from interlace.report.facts.run import Run


USAGE = """\
```python
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained(MODEL, dtype="auto"TRUST)
processor = AutoProcessor.from_pretrained(MODELTRUST)

asked = [{"type": "image", "url": "picture.png"}, {"type": "text", "text": "What is this?"}]
inputs = processor.apply_chat_template(
    [{"role": "user", "content": asked}],
    add_generation_prompt=True,
    tokenize=True,
    return_dict=True,
    return_tensors="pt",
)
answer = model.generate(**inputs, max_new_tokens=50)[0, inputs["input_ids"].shape[1] :]
print(processor.decode(answer, skip_special_tokens=True))
```"""


def table(heading: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> str:
    """A table; all columns but the first are numbers, set flush right."""
    rule = ["---", *(["--:" if numbers else "---"] * (len(heading) - 1))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heading, rule, *rows))


def introduction(run: Run, which: Which) -> list[str]:
    """What the checkpoint is, in one sentence, and what matters of it, in one table."""
    now, summary = _columns(run, which), run.summary
    before, after = summary["parameters_before"], summary["parameters_after"]
    rows = [
        ["decoder layers", str(summary["layers_before"]), str(summary["layers_after"])],
        ["parameters", size(before), f"{size(after)} ({100 * (after / before - 1):+.1f}%)"],
    ]
    if f"score_{which}" in summary:
        names = f"mean score, {summary['benchmarks']} benchmarks"
        rows.append([names, f"{summary['score_dense']:.1f}", f"{summary[f'score_{which}']:.1f}"])
    if f"retention_{which}" in summary:  # none where the dense model scores 0 throughout
        rows.append(["of the dense model's", "", f"{summary[f'retention_{which}']:.1f}%"])
        for name in references_in(summary):
            kept = summary.get(f"retention_{which}_of_{name}")  # none where the reference scores 0
            rows.append([f"of {spelled(name)}'s", "", _share(kept)])
    if "ttft_dense_ms" in summary:
        first, later = f"{summary['ttft_dense_ms']:.1f} ms", f"{summary['ttft_tuned_ms']:.1f} ms"
        ratio = f" ({summary['ttft_speedup']:.2f}x)" if "ttft_speedup" in summary else ""
        rows.append(["time to first token", first, later + ratio])
    return [f"{_what(run, which)} {_weights(run, which)}", table(["", "dense", now[-1]], rows)]


def _what(run: Run, which: Which) -> str:
    """What became of the dense model's layers."""
    plan, base = run.plan, linked(run.base)
    tuned = len(plan.tune) if which == "tuned" else 0
    if not plan.drop:
        healed = f", {tuned} of them fine-tuned" if tuned else ""
        if run.exported.get("sparsity"):
            healed += "; two of every four weights of their linear layers are zero"
        return f"{base} with all of its {plan.n_layers} decoder layers{healed}."
    healed = f" Of those left, {tuned} were fine-tuned." if tuned else ""
    return (
        f"{base} without {len(plan.drop)} of its {plan.n_layers} decoder layers, which"
        f" Interlace dropped.{healed}"
    )


def _weights(run: Run, which: Which) -> str:
    """How far the other weights are the dense model's."""
    repaired = run.exported.get("compensation"), run.exported.get("sparsity")
    converted = (run.params.get("export") or {}).get("dtype", "keep") != "keep"
    trained = which == "tuned" and bool(run.plan.tune)
    rest = "Every other weight is" if trained else "Nothing was fine-tuned: every weight is"
    if any(repaired) or converted:
        return "" if trained else "Nothing was fine-tuned."
    return f"{rest} the dense model's, bit for bit."


def linked(source: Mapping[str, Any]) -> str:
    """A source, as a link where it is on the hub; an absolute path by its last part."""
    name = str(source["id"])
    if "revision" in source:
        return f"[{name}](https://huggingface.co/{name})"
    return f"`{Path(name).name if name.startswith('/') else name}`"


def usage(trust_remote_code: bool) -> list[str]:
    """How to load the checkpoint and ask it something."""
    trust = ", trust_remote_code=True" if trust_remote_code else ""
    code = USAGE.replace("TRUST", trust).replace("MODEL", PLACEHOLDER)
    needed = "the model's own code" if trust else "nothing but transformers"
    return ["## Use it", f"A stock checkpoint: it needs {needed}.", code]


def layers(plan: Plan, rule: PaperRule, which: Which) -> list[str]:
    """Which layers went, and why these."""
    roles = [("dropped", plan.drop)]
    if which == "tuned":
        roles += [("fine-tuned", plan.tune), ("frozen", plan.freeze)]
    else:
        roles += [("kept", plan.keep)]
    rows = [[role, ", ".join(map(str, chosen)) or "none"] for role, chosen in roles]
    said = "\n".join(f"- {note}" for note in notes(plan, rule))
    return [
        "## Layers",
        f"Chosen by {asked(plan)}. Layers are positions in the dense decoder, from 0.",
        table(["", "layers"], rows, numbers=False),
        *([said] if said else []),
    ]


def _columns(run: Run, which: Which) -> list[str]:
    """The models of a score table; a tuned model of which nothing was tuned is the pruned one."""
    if which == "pruned" or not run.plan.tune:
        return ["dense", "pruned" if run.plan.drop else "this model"]
    return ["dense", "pruned", "tuned"] if run.plan.drop else ["dense", "tuned"]


def scores(run: Run, which: Which) -> list[str]:
    """Scores beside the reference, which is named."""
    left = "\n".join(f"- {name}: {why}" for name, why in run.left_out.items())
    named = ["Left out of the means:", left] if left else []
    if not any(result.scores for result in run.evaluations.values()):
        return ["## Scores", "Not measured.", *named]
    columns, references = _columns(run, which), references_in(run.summary)
    models = [*columns[:-1], which, *references]
    kept = [f"retention_{which}", *(f"retention_{which}_of_{name}" for name in references)]
    rows = []
    for name in benchmarks_of(run.summary):
        found = [run.evaluations[model].scores.get(name) for model in models]
        shares = [_share(run.summary.get(f"{key}/{name}")) for key in kept]
        rows.append([name, sample_counts(found), *map(_score, found), *shares])
    means = [_mean(run.summary.get(f"score_{model}")) for model in models]
    rows.append(["**mean**", "", *means, *(_mean(run.summary.get(key), "%") for key in kept)])
    named_columns = [*columns, *map(spelled, references), "of dense"]
    named_columns += [f"of {spelled(name)}" for name in references]
    return [
        "## Scores",
        _reference(run, which),
        table(["benchmark", "samples", *named_columns], rows),
        *named,
    ]


def _reference(run: Run, which: Which) -> str:
    measured = run.evaluations[which]
    text = (
        f"0 to 100, \u00b1 one standard error. The reference is Dense, {linked(run.base)} as it"
        " is, measured in the same run; the mean of \u201cof dense\u201d is a mean of ratios."
        f" Measured on {device_name(measured.device)} in {measured.dtype}."
    )
    if run.plan.method == "dense-ft" and which == "tuned":
        return f"{text} This model is Dense-FT, the fine-tuned reference itself."
    references = references_in(run.summary)
    some = "its last layers, as many as the ratio is of all layers,"
    tuned = {"dense_ft": some, "dense_sft": "all layers"}
    for name in references:
        text += f" {spelled(name)} is the dense model with {tuned[name]} fine-tuned alike."
    if which == "tuned" and run.plan.tune and not references:
        text += (
            " Dense-FT, the dense model fine-tuned alike, is not among them: part of what tuning"
            " adds here it might add there."
        )
    return text


def _score(score: Score | None) -> str:
    if score is None:
        return NONE
    error = score.standard_error
    return f"{score.score:.1f}" + (f" \u00b1 {error:.1f}" if error is not None else "")


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}%"


def _mean(value: float | None, unit: str = "") -> str:
    return NONE if value is None else f"**{value:.1f}{unit}**"


def speed(run: Run, which: Which) -> list[str]:
    """Time to first token, how sure it is, and on what it was measured."""
    took = run.ttft
    if "ttft_speedup" not in took:
        return ["## Speed", "Not measured."]
    if took["ttft_speedup"] is None:
        times = f"{took['ttft_dense_ms']:.1f} ms dense, {took['ttft_tuned_ms']:.1f} ms pruned"
        why = f"No speedup is given: {took['ttft_speedup_refused']}."
        return ["## Speed", f"Time to first token: {times}. {why}"]
    level = (run.params.get("ttft") or {}).get("confidence")
    sure = f"{percent(level)} interval" if level else "interval"
    threads = f" with {took['threads']} threads" if "threads" in took else ""
    where = "a GPU" if took.get("on_gpu") else f"a CPU{threads}"
    as_tuned = " Measured on the tuned checkpoint, which has the same shape."
    return [
        "## Speed",
        f"Time to first token: {took['ttft_dense_ms']:.1f} ms dense,"
        f" {took['ttft_tuned_ms']:.1f} ms with {run.summary['layers_after']} layers,"
        f" {took['ttft_speedup']:.2f}x as fast ({sure} {took['ttft_speedup_low']:.2f} to"
        f" {took['ttft_speedup_high']:.2f}; {took['ttft_ideal']:.2f}x by FLOPs). Medians of"
        f" {took['pairs']} pairs of requests, one at a time on {where}; vision tower, prefill and"
        f" the first token count.{as_tuned if which == 'pruned' and run.plan.tune else ''}",
    ]
