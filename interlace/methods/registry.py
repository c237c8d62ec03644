"""The registry of methods."""

from __future__ import annotations

from interlace.errors import InputError, did_you_mean, nearest_name
from interlace.methods import baselines, domain, loss
from interlace.methods.choice import Method
from interlace.methods.interlace import INTERLACE, interlace_oa, interlace_tn
from interlace.methods.manual import manual
from interlace.methods.optimal import interlace_optimal
from interlace.scores.table import ANGULAR, CKA, MATH, NONMATH, POOLED, SEARCH, SLEB, TAYLOR

METHODS: dict[str, Method] = {
    "interlace": INTERLACE,
    "interlace-optimal": Method(interlace_optimal, periods="span"),
    "interlace-oa": Method(interlace_oa),
    "interlace-tn": Method(interlace_tn),
    "random": Method(baselines.random, needs=()),
    "consecutive": Method(baselines.consecutive, periods="run"),
    "dense-ft": baselines.DENSE_FT,
    "math-aware": Method(domain.math_aware, (MATH,), 1, 1, "prunable", periods="sum"),
    "nonmath-aware": Method(domain.nonmath_aware, (NONMATH,), 1, 1, "prunable", periods="sum"),
    "mixed": Method(domain.mixed, (MATH, NONMATH), 1, 1, "prunable", periods="sum"),
    "cka": Method(domain.cka, (CKA,), 1, 1, "prunable", periods="sum"),
    "interlace-pooled": Method(domain.interlace_pooled, (POOLED,), 1, 1, "prunable"),
    "shortgpt": Method(baselines.shortgpt, lowest_first=True, periods="sum"),
    "angular-block": Method(baselines.angular_block, (ANGULAR,), lowest_first=True, periods="run"),
    "sleb": Method(loss.sleb, (SLEB,), 1, 1, lowest_first=True, spares_sinks=False),
    "search": Method(loss.search, (SEARCH,), 1, 1, lowest_first=True, spares_sinks=False),
    "taylor": Method(loss.taylor, (TAYLOR,), lowest_first=True, periods="sum"),
    "manual": Method(manual, needs=(), spares_sinks=False, periods="named"),
    "wanda-2:4": Method(baselines.wanda_2_4, needs=(), removes=False, sparsity="wanda-2:4"),
    "magnitude-2:4": Method(
        baselines.magnitude_2_4, needs=(), removes=False, sparsity="magnitude-2:4"
    ),
}


BUILT_IN = frozenset(METHODS)


def find_method(name: str) -> Method:
    """Look a method up by its name.

    Raises:
        InputError: no method has this name; names a near one.
    """
    if name not in METHODS:
        near = did_you_mean(nearest_name(name, METHODS))
        raise InputError(f"method = {name!r}: no such method; {near}({', '.join(METHODS)})")
    return METHODS[name]


def register_method(name: str, method: Method) -> None:
    """Add a method of one's own, for `select` and `prune` in this process.

    Args:
        name: that `method` arguments take; a second call replaces the first.
        method: the rule, and what it needs.

    Raises:
        InputError: an empty name, or that of a method of Interlace.
    """
    if not name or name in BUILT_IN:
        problem = "Interlace has such a method" if name else "empty"
        raise InputError(f"name = {name!r}: {problem}; choose another name")
    METHODS[name] = method
