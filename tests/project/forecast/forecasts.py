"""A setting to forecast: Qwen3-VL-8B's sizes, written down, and rows of round numbers."""

from __future__ import annotations

from typing import Any

from interlace.params.whole import Params
from interlace.project.forecast.machine import GIB, Machine
from interlace.project.forecast.rates import Rates, stated_rates
from interlace.project.forecast.row_facts import RowFacts, Spread
from interlace.project.forecast.setting import Setting
from interlace.project.forecast.sizes import Patch, Sizes

LAYER = 192_946_432
SIZES = Sizes(
    n_layers=36,
    taps=3,
    total=8_767_123_696,
    layer=LAYER,
    active=LAYER,
    linears=75_776,
    largest=622_329_856,
    outside=576_388_336,
    also={"projector": 160_496_896, "lm_head": 622_329_856, "norms": 308_224},
    vocabulary=151_936,
    width=4096,
    query=4096,
    key=1024,
    inner=12_288,
    normed_heads=True,
    patch=Patch(1024, 4, 1536, 1152, 4304),
    stored_bytes=2,
)
ROWS = RowFacts(
    text=Spread(500, 8192),
    prompt=Spread(100, 8192),
    answers=400,
    images=Spread(0.7, 3),
    image=Spread(469, 469),
    counted=64,
    train=240_000,
    calibration=24_000,
    row_bytes=200_000,
)
PLENTY = 1e13  # bytes of disk


def params(**changes: Any) -> Params:
    """Parameters of a run; sections are given as dictionaries."""
    values = {"model": {"id": "org/model"}, "data": {"id": "org/rows"}, "dtype": "bfloat16"}
    return Params.model_validate(values | changes)


def setting(gib: float = 79, gpus: int = 1, disk: float = PLENTY, **changes: Any) -> Setting:
    """The 8B on cards of so much memory, a process on each."""
    launch = f"torchrun --nproc-per-node {gpus} -m" if gpus > 1 else "python -m"
    return Setting(
        params=params(**{"launch": launch} | changes),
        dense=SIZES,
        drops=9,
        tunes=9,
        rows=ROWS,
        heldout=(),
        machine=Machine("card", gpus, gib * GIB, 1e15, 3e12, disk),
        fetched=0,
    )


def rates(case: Setting) -> Rates:
    return stated_rates(case.machine, case.processes)
