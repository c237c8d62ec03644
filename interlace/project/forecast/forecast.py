"""The forecast of a run: tokens, memory, disk and hours of each stage, and what was assumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from interlace.params.whole import Params
from interlace.project.forecast import disk, hours, memory
from interlace.project.forecast.disk import Disk
from interlace.project.forecast.hours import Cost
from interlace.project.forecast.machine import GIB
from interlace.project.forecast.memory import Memory
from interlace.project.forecast.rates import Rates
from interlace.project.forecast.setting import Setting
from interlace.project.forecast.sizes import Sizes
from interlace.selection.feasible import loss_criterion

ALONE = ("sensitivity", "export", "ttft")  # stages of one process, whatever `launch` says
NOT_FORECAST: dict[
    str, Callable[[Params], bool]
] = {  # what a run may do besides, by the parameter that turns it on
    "ratio = auto": lambda p: p.ratio == "auto",
    "select.rounds": lambda p: p.select.rounds > 1,
    "select.candidates": lambda p: p.select.candidates > 0,
    "heal.local_steps": lambda p: p.heal.local_steps > 0,
    "export.compensate": lambda p: p.export.compensate != "none",
    "evaluate.judged": lambda p: bool(p.evaluate.judged),
}


@dataclass(frozen=True)
class StageForecast:
    """The needs of one stage.

    Attributes:
        name: of the stage.
        cost: tokens and seconds.
        disk: bytes.
        memory: of each process; `None`: next to none, or on servers.
        room: memory that each process has, bytes.
    """

    name: str
    cost: Cost
    disk: Disk
    memory: Memory | None = None
    room: float = float("inf")

    @property
    def fits(self) -> bool:
        """True if its memory is there."""
        return self.memory is None or self.memory.peak <= self.room


@dataclass(frozen=True)
class Forecast:
    """The needs of a run.

    Attributes:
        stages: in their order.
        free: bytes free on the disk.
        assumptions: sentences.
    """

    stages: tuple[StageForecast, ...]
    free: float
    assumptions: tuple[str, ...]

    @property
    def disk_peak(self) -> float:
        """The most bytes on the disk at a time: what stays, and one stage's unfinished work."""
        stays, peak = 0.0, 0.0
        for stage in self.stages:
            stays += stage.disk.stays
            peak = max(peak, stays + stage.disk.passes)
        return peak

    def stage(self, name: str) -> StageForecast:
        """Return a stage by name."""
        return next(stage for stage in self.stages if stage.name == name)


def forecast(setting: Setting, rates: Rates) -> Forecast:
    """Compute the needs of all stages."""
    machine = setting.machine
    stages = tuple(
        replace(s, room=machine.share(1 if s.name in ALONE else setting.processes))
        for s in _stages(setting, rates)
    )
    return Forecast(
        stages=stages,
        free=setting.machine.disk,
        assumptions=tuple(_assumptions(setting, rates)),
    )


def _stages(setting: Setting, rates: Rates) -> Iterator[StageForecast]:
    params, dense = setting.params, setting.dense
    yield StageForecast("sample", hours.drawing(setting), disk.drawn_bytes(setting))
    if params.answers.source == "dense":
        opens_model = params.answers.endpoint.url is None
        yield StageForecast(
            "answers",
            hours.answering_cost(setting, rates),
            disk.answered_bytes(setting),
            memory.generating(setting) if opens_model else None,
        )
    yield StageForecast(
        "collect",
        hours.collecting_cost(setting, rates),
        disk.measured_bytes(setting),
        memory.collecting(setting),
    )
    if needed := loss_criterion(params, dense.n_layers, dense.taps):
        name = str(needed["criterion"])
        yield StageForecast(
            "sensitivity",
            hours.sensing_cost(setting, rates, name),
            Disk(),
            memory.sensing(setting, name),
        )
    exported = disk.exported_bytes(setting)
    cost = hours.exporting_cost(setting, exported.stays)
    yield StageForecast("export", cost, exported, memory.exporting(setting))
    yield from _trainings(setting, rates)
    yield from _evaluations(setting, rates)
    cost = hours.timing_cost(setting, rates)
    yield StageForecast("ttft", cost, Disk(), memory.timing(setting))


def _trainings(setting: Setting, rates: Rates) -> Iterator[StageForecast]:
    """Yield `finetune`, and `reference` where it is asked for."""
    params = setting.params
    recipe, dtype = params.finetune, params.finetune.dtype
    if dtype == "auto":
        dtype = "float32" if params.dtype == "float16" else params.dtype
    trained = {"finetune": (setting, setting.pruned)}
    if params.reference != "none":
        count = setting.drops if params.reference == "dense-ft" else setting.dense.n_layers
        trained["reference"] = (replace(setting, tunes=count), setting.dense)
    for name, (case, sizes) in trained.items():
        room = memory.training(case, sizes, recipe, dtype)
        distilled = params.heal.distill_logits or params.heal.distill_states
        if name == "finetune" and distilled:
            weights = room.weights + setting.element(dtype) * setting.dense.total
            room = Memory(weights, room.activations, room.gradients, room.optimizer)
        yield StageForecast(
            name,
            hours.training_cost(case, rates, sizes, recipe),
            disk.tuned_bytes(case, sizes, recipe),
            room if recipe.max_steps else None,
        )


def _evaluations(setting: Setting, rates: Rates) -> Iterator[StageForecast]:
    """Yield `evaluate` of each model."""
    params, b = setting.params, setting.element(setting.params.dtype)
    models: dict[str, Sizes] = {"dense": setting.dense}
    models |= dict.fromkeys(("pruned", "tuned"), setting.pruned)
    if params.reference != "none":
        models["reference"] = setting.dense
    for name, sizes in models.items():
        cost = hours.evaluating_cost(setting, rates, sizes, b)
        room = memory.evaluating(setting, sizes) if params.evaluate.opens_model else None
        yield StageForecast(f"evaluate {name}", cost, Disk(), room)


def _assumptions(setting: Setting, rates: Rates) -> Iterator[str]:
    machine, rows, params = setting.machine, setting.rows, setting.params
    unit = f"{machine.gpus} x {machine.name}" if machine.gpus else "the CPU"
    yield (
        f"{unit}, {machine.memory / GIB:.1f} GiB{' each' if machine.gpus > 1 else ''}; `launch`"
        f" starts {setting.processes} process{'es' if setting.processes > 1 else ''}; each takes"
        f" {memory.FIXED / GIB:g} GiB beside the model"
    )
    yield rates.origin
    if rows.counted:
        yield (
            f"{rows.train:,} rows, by {rows.counted} of them of {setting.trained.mean:.0f} tokens"
            f" in training and {setting.prompts.mean:.0f} in a measured prompt, at most"
            f" {setting.trained.most:.0f} and {setting.prompts.most:.0f}"
        )
    yield from rows.notes
    yield (
        f"{setting.drops} of {setting.dense.n_layers} layers go and {setting.tunes} are tuned;"
        " gradients reach the first layer"
    )
    yield "answers are as long as evaluate.max_new_tokens allows"
    yield (
        f"{hours.START:g} s to start a stage, {hours.FETCHED / 1e6:g} MB/s from the hub,"
        f" {hours.DRAWN:,} rows drawn per second, checkpoints written at"
        f" {hours.WRITTEN / 1e9:g} GB/s"
    )
    if setting.processes > 1:
        yield "processes share work evenly and lose no time to one another"
    names = [name for name, is_on in NOT_FORECAST.items() if is_on(params)]
    if names:
        yield f"not in the forecast: {', '.join(names)}"
