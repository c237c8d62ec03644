"""The numbers of a run as a table for the terminal; fits 80 columns. The caller prints it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType

from interlace.report.facts.calibration import ENOUGH
from interlace.report.facts.losses import rise_text
from interlace.report.facts.roles import Role
from interlace.report.facts.summary import MODELS, Metrics, benchmarks_of, references_in
from interlace.report.facts.wording import NONE, parameter_sizes
from interlace.report.terminal.console import PlainTable, plain_text
from interlace.report.terminal.strips import ROLE_COLOURS


def summary_table(summary: Metrics, left_out: Mapping[str, str] | None = None) -> RenderableType:
    """Show scores and retention per benchmark, then layers, parameters and time to first token.

    Args:
        summary: what `summarise` returned, or `metrics/summary.json` as read.
        left_out: benchmarks without a result, and why.
    """
    blocks: list[RenderableType] = [_scores_table(summary), _facts(summary)]
    if left_out:
        blocks.append(plain_text("excluded from the means:", "yellow"))
        blocks += [plain_text(f"  {name}: {reason}", "dim") for name, reason in left_out.items()]
    return Group(*blocks)


def _scores_table(summary: Metrics) -> PlainTable:
    table = PlainTable(box=SIMPLE_HEAD, show_edge=False, show_footer=True, pad_edge=False)
    table.add_column("benchmark", footer="mean", overflow="fold")
    headings = [
        ("dense", "score_dense", ROLE_COLOURS[Role.ANCHOR]),
        ("pruned", "score_pruned", ROLE_COLOURS[Role.DROP]),
        ("tuned", "score_tuned", ROLE_COLOURS[Role.TUNE]),
        ("pruned\nof dense", "retention_pruned", ROLE_COLOURS[Role.DROP]),
        ("tuned\nof dense", "retention_tuned", ROLE_COLOURS[Role.TUNE]),
    ]
    keys = ["dense", "pruned", "tuned", "retention_pruned", "retention_tuned"]
    for name in references_in(summary):
        label, key = name.replace("_", "-"), f"retention_tuned_of_{name}"
        headings.append((label, f"score_{name}", ROLE_COLOURS[Role.ANCHOR]))
        headings.append((f"tuned of\n{label}", key, ROLE_COLOURS[Role.TUNE]))
        keys += [name, key]
    for (heading, mean, colour), key in zip(headings, keys, strict=True):
        footer = _number(summary.get(mean), percent=key.startswith("retention"))
        table.add_column(
            heading, footer=footer, justify="right", no_wrap=True, header_style=f"bold {colour}"
        )
    for name in benchmarks_of(summary):
        cells = [
            _number(summary.get(f"{key}/{name}"), percent=key.startswith("retention"))
            for key in keys
        ]
        table.add_row(name, *cells)
    if names := [key.split("/", 1)[1] for key in summary if key.startswith("category_samples/")]:
        table.add_section()
    for name in names:
        cells = [
            _number(summary.get(f"category_{key}/{name}"), percent=key.startswith("retention"))
            for key in keys
        ]
        table.add_row(name, *cells, style="italic")
    return table


def _number(value: float | None, *, percent: bool = False) -> str:
    if value is None:
        return NONE
    return f"{value:.1f}%" if percent else f"{value:.1f}"


def _facts(summary: Metrics) -> PlainTable:
    table = PlainTable(
        box=None, show_header=False, show_edge=False, pad_edge=False, padding=(0, 2),
        collapse_padding=True,
    )  # fmt: skip
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, text in _fact_lines(summary):
        table.add_row(name, text)
    return table


def _fact_lines(summary: Metrics) -> Sequence[tuple[str, str]]:
    dense_size, pruned_size, change = parameter_sizes(summary)
    lines = [
        (
            "layers",
            f"{summary['layers_before']} → {summary['layers_after']}"
            f"   ({summary['layers_tuned']} tuned)",
        ),
        ("parameters", f"{dense_size} → {pruned_size}   ({change})"),
    ]
    if "score_tuned_error" in summary:
        errors = ", ".join(f"{summary[f'score_{model}_error']:.1f}" for model in MODELS)
        lines.append(("error", f"of the means: {errors}   ({summary['samples']:,} questions)"))
    if "retention_tuned_low" in summary:
        intervals = [
            f"{model} [{summary[f'retention_{model}_low']:.1f}%,"
            f" {summary[f'retention_{model}_high']:.1f}%]"
            for model in MODELS[1:]
        ]
        lines.append(("retention", f"{' and '.join(intervals)} at 95%"))
    if "loss_dense" in summary:
        lines += _loss_lines(summary)
    if "selection_same" in summary:
        share = _number(summary["selection_same"], percent=True)
        lines.append(("selection", f"{share} of resamples drop the same layers"))
    if "calibration_share" in summary:
        lines.append(("calibration", _calibration(summary)))
    if "ttft_dense_ms" in summary:
        lines.append(("first token", _first_token(summary)))
    if "prefill_speedup" in summary:
        ideal = summary.get("prefill_ideal")
        text = f"{summary['prefill_speedup']:.2f}x speedup"
        lines.append(("prefill", text + (f", ideal {ideal:.2f}x" if ideal else "")))
    return lines


def _loss_lines(summary: Metrics) -> list[tuple[str, str]]:
    """Say the losses on held-out answers, their rises and the agreement with the dense model."""
    models = [name for name in (*MODELS, *references_in(summary)) if f"loss_{name}" in summary]
    losses = ", ".join(f"{name.replace('_', '-')} {summary[f'loss_{name}']:.3f}" for name in models)
    lines = [("loss", f"{losses} nats per answer token")]
    if compared := [name for name in models if f"loss_rise_{name}" in summary]:
        names = {name: name.replace("_", "-") for name in compared}
        rises = ", ".join(f"{names[name]} {rise_text(summary, name)}" for name in compared)
        shares = ", ".join(
            f"{names[name]} {summary[f'agreement_{name}']:.1f}%" for name in compared
        )
        lines.append(("loss rise", f"over dense: {rises}"))
        lines.append(("agreement", f"with dense's first choice: {shares} of tokens"))
    return lines


def _calibration(summary: Metrics) -> str:
    """Say if a tenth of the calibration set would have been enough, and the smallest that would."""
    share_percent, text = summary["calibration_share"], []
    if (tau := summary.get("calibration_tenth_tau")) is not None:
        ranking = "the same ranking as" if tau >= ENOUGH else "another ranking than"
        tenth = (
            f"{share_percent / 10:.2g}% of the training set gives {ranking} {share_percent:.2g}%"
        )
        text.append(f"{tenth} (Kendall's tau {tau:.2f})")
    share = summary.get("calibration_enough_share")
    if share is None:
        text.append("no smaller calibration set gave the same ranking")
    elif not text or abs(share - share_percent / 10) > 0.02 * share_percent:
        text.append(f"{share:.2g}% is enough (tau {summary['calibration_enough_tau']:.2f})")
    return "\n".join(text)


def _first_token(summary: Metrics) -> str:
    """Say the speedup; without it, the interval that was too wide to report one."""
    low, high = summary["ttft_speedup_low"], summary["ttft_speedup_high"]
    times = f"({summary['ttft_dense_ms']:.1f} → {summary['ttft_tuned_ms']:.1f} ms)"
    ideal = f"ideal {summary['ttft_ideal']:.2f}x"
    if "ttft_speedup" not in summary:
        return f"speedup uncertain: {low:.2f}x to {high:.2f}x, {ideal}   {times}"
    return f"{summary['ttft_speedup']:.2f}x speedup [{low:.2f}, {high:.2f}], {ideal}   {times}"
