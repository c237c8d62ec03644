"""Candidates: the plans of one method or of several that may be the best after healing.

The first plan of each method is its own. The others are its next best, by its own criterion:

- `sleb`, `search`: the sets of K layers with the lowest measured losses. For `search`, those that
  were measured on all rows come before those that were screened.
- `random`: the draws of the next seeds.
- all other methods: the rule again, with dropped layers of better plans protected. The greatest
  sum of scores comes first, or the lowest where low scores go first. For rankings and runs these
  are the best plans in order: any other plan lacks a layer that the best one drops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from interlace.errors import InputError
from interlace.methods.choice import Choice, Method, Request
from interlace.methods.registry import find_method
from interlace.params.candidates import CandidatesParams
from interlace.params.choosing import Select
from interlace.plan.record import Decision, Plan, read_decision
from interlace.scores.table import SEARCH, SLEB, Scores, read_parquet, read_scores
from interlace.selection.by_rule import plan_by_rule
from interlace.selection.select import resolve_ratio

Ranking = tuple[list[int], dict[int, float]]  # layers in the order of removal, and their values


@dataclass(frozen=True)
class Question:
    """A method, and all that it is to decide by.

    Attributes:
        amount: a share of the layers, K, or a budget's decision on K.
        measured_sets: all sets of layers that `sensitivity` measured, where the method needs them.
    """

    scores: Scores
    method: str
    amount: float | Decision
    options: Select
    seed: int = 0
    measured_sets: pa.Table | None = None

    @property
    def rule(self) -> Method:
        """The method's rule."""
        return find_method(self.method)

    def plan(self, rule: Method | None = None) -> Plan:
        """Return the plan by the method's rule, or by another one under its name."""
        rule = rule or self.rule
        return plan_by_rule(
            self.scores, self.method, rule, self.amount, self.options, seed=self.seed
        )


def read_question(artifacts: Path, params: CandidatesParams) -> Question:
    """Read what a run measured and decided.

    Args:
        artifacts: holds scores.parquet, budget.json, and sensitivity/.
        params: the method, the ratio and the options.

    Raises:
        InputError: a file is missing or damaged.
    """
    sets = artifacts / "sensitivity/candidates.parquet"
    return Question(
        read_scores(artifacts / "scores.parquet", by_score=True),
        params.method,
        resolve_ratio(params.ratio, read_decision(artifacts / "budget.json")),
        params.select,
        params.seed,
        read_parquet(sets) if sets.exists() else None,
    )


def compared_methods(method: str, options: Select) -> list[str]:
    """Return the methods whose plans are compared, `method` first."""
    return list(dict.fromkeys([method, *options.candidate_methods]))


def candidate_plans(question: Question) -> list[Plan]:
    """Return the `select.candidates` best plans of each method; of equal ones, the first.

    All drop as many layers as the plan of the question's own method.

    Raises:
        InputError: a method cannot drop as many, or there is one plan only.
    """
    plans = best_plans(question)
    drops, amount = len(plans[0].drop), question.amount
    for method in compared_methods(question.method, question.options)[1:]:
        size = amount if isinstance(amount, Decision) else drops
        try:
            plans += best_plans(replace(question, method=method, amount=size))
        except InputError as error:
            raise InputError(f"select.candidate_methods, {method}: {error}") from None
    plans = _distinct(plans)
    if len(plans) < 2:
        words = f" of {drops} layer{'s' * (drops != 1)}"
        raise one_plan_only(question.method, question.options, words)
    return plans


def one_plan_only(method: str, options: Select, size: str = "") -> InputError:
    """Return the error for candidates that are one plan."""
    methods = compared_methods(method, options)
    have = "has" if len(methods) == 1 else "have"
    more = "raise it, " if methods != ["manual"] else ""
    return InputError(
        f"select.candidates = {options.candidates}: {', '.join(methods)} {have} one plan only"
        f"{size}, and nothing to compare it with; {more}name other methods in"
        " select.candidate_methods, or set it to 0"
    )


def best_plans(question: Question) -> list[Plan]:
    """Return up to `select.candidates` different plans of one method, its own first.

    Raises:
        InputError: as `select` does, or the measured sets are missing.
    """
    criteria = {SLEB, SEARCH} & {*question.rule.needs}
    find = _by_loss if criteria else SPECIAL.get(question.method, _by_sparing)
    return find(question)[: question.options.candidates]


def _distinct(plans: list[Plan]) -> list[Plan]:
    by_layers: dict[tuple[int, ...], Plan] = {}
    for plan in plans:
        by_layers.setdefault((*plan.drop, -1, *plan.tune), plan)
    return list(by_layers.values())


def _by_seed(question: Question) -> list[Plan]:
    seeds = range(question.seed, question.seed + question.options.candidates)
    return _distinct([replace(question, seed=seed).plan() for seed in seeds])


SPECIAL: dict[str, Callable[[Question], list[Plan]]] = {"random": _by_seed}


def _by_loss(question: Question) -> list[Plan]:
    first, rule = question.plan(), question.rule
    (criterion,) = {SLEB, SEARCH} & {*rule.needs}
    if question.measured_sets is None:
        raise InputError(
            f"{criterion}: the sets of layers that were measured are missing; run `sensitivity`"
        )
    plans = [first]
    for ranking in RANKINGS[criterion](question.measured_sets, len(first.drop)):
        if len(plans) == question.options.candidates:
            break
        plan = question.plan(replace(rule, choose=_choose_ranking(*ranking)))
        plans = _distinct([*plans, plan])
    return plans


def _choose_ranking(order: list[int], values: dict[int, float]) -> Callable[..., Choice]:
    def choose(scores: Scores, request: Request) -> Choice:
        return Choice.of_ranking(order, values, scores, request)

    return choose


def sleb_rankings(table: pa.Table, drops: int) -> Iterator[Ranking]:
    """Yield the candidates of sleb's last step, after its own first removals, by their loss."""
    rows = table.to_pylist()
    first = [row["layer"] for row in rows if row["removed"] and row["step"] < drops - 1]
    last = [row for row in rows if row["step"] == drops - 1]
    for row in sorted(last, key=lambda row: (row["loss"], row["layer"])):
        order = [*first, row["layer"]]
        yield order, {layer: float(step) for step, layer in enumerate(order)}


def search_rankings(table: pa.Table, drops: int) -> Iterator[Ranking]:
    """Yield the sets of K layers by their loss; those measured on all rows come first."""
    rows = [row for row in table.to_pylist() if len(row["drop"]) == drops]
    for row in sorted(rows, key=lambda row: (row["rows"] != "all", row["loss"], row["drop"])):
        yield row["drop"], dict.fromkeys(row["drop"], row["loss"])


RANKINGS: dict[str, Callable[[pa.Table, int], Iterator[Ranking]]] = {
    SLEB: sleb_rankings,
    SEARCH: search_rankings,
}


def _by_sparing(question: Question) -> list[Plan]:
    """Search best first: after a plan come those that spare one of its dropped layers more."""
    best, nothing = question.plan(), frozenset[int]()
    plans: list[Plan] = []
    frontier, spared_sets = {nothing: best}, {nothing}
    while frontier and len(plans) < question.options.candidates:
        spared = min(frontier, key=lambda s: (_rank(question, frontier[s]), sorted(s)))
        plan = frontier.pop(spared)
        plans = _distinct([*plans, plan])
        for layers in {spared | {layer} for layer in plan.drop} - spared_sets:
            spared_sets.add(layers)
            try:
                next_plan = question.plan(_sparing(question.rule, layers))
            except InputError:
                continue  # too few layers are left
            if len(next_plan.drop) == len(best.drop):
                frontier[layers] = next_plan
    return plans


def _sparing(rule: Method, layers: frozenset[int]) -> Method:
    """Return a rule that never drops nor groups some layers more."""

    def choose(scores: Scores, request: Request) -> Choice:
        return rule.choose(scores, replace(request, free=request.free - layers))

    return replace(rule, choose=choose)


def _rank(question: Question, plan: Plan) -> tuple[int, float]:
    """Return a plan's place by the method's criterion: most triplets, then the sum of scores."""
    total = sum(group.score or 0.0 for group in plan.groups)
    return -plan.shortfall.triplets, total if question.rule.lowest_first else -total
