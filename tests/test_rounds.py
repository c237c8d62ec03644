"""Progressive pruning measures the smaller model, and resumes from its tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import answered_samples
import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from interruptions import interrupt
from plans import PREFIX, weights
from safetensors.torch import load_file, save_file
from sources_json import pinned_model

from interlace import rounds
from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.safetensors import tensor_files
from interlace.errors import InputError
from interlace.methods.choice import Choice
from interlace.params.choosing import Select
from interlace.params.exporting import Export
from interlace.params.healing import Heal, Recipe
from interlace.params.measuring import Answers, Collect
from interlace.params.rounds import RoundsParams
from interlace.plan.record import Plan
from interlace.pruning import compensation
from interlace.pruning.dense import Dense
from interlace.pruning.export import export_checkpoint
from interlace.pruning.new_weights import compensated
from interlace.scores.table import read_scores
from interlace.selection.select import select
from interlace.system.outputs import remove, write_json

LAYERS, HEALED = 6, rounds.HEALED
COLLECT = Collect(dtype="float32")
RECIPE = Recipe(
    batch_size=4, micro_batch_size=4, max_length=512, min_pixels=None, max_pixels=None, workers=0
)
Values = dict[tuple[str, int, int], float]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [
        answered_samples.calibration(tmp_path_factory.mktemp("samples") / "rows", models.rows(6))
    ]


@pytest.fixture(scope="module")
def dense_table(
    dense_dir: Path, samples: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("dense_table")
    scores = rounds.measure_without(
        pinned_model(dense_dir), samples, [], COLLECT, folder / "scratch"
    )
    pq.write_table(scores, folder / "scores.parquet")
    return folder / "scores.parquet"


def params_of(**changes: Any) -> RoundsParams:
    sections = {"ratio": 0.34, "seed": 0, "dtype": "float32", "finetune": RECIPE}
    return RoundsParams(method="shortgpt", **(sections | changes))


Run = Callable[..., tuple[Plan, Path]]


@pytest.fixture
def run(dense_dir: Path, samples: list[Path], dense_table: Path, tmp_path: Path) -> Run:
    """Prunes in rounds; returns the plan and the table of the second round."""
    write_json(tmp_path / "budget.json", None)

    def prune(
        scratch: str = "scratch", ratio: float = 0.34, compensate: str = "none", **choice: Any
    ) -> tuple[Plan, Path]:
        out = tmp_path / "rounds"
        remove(out)
        out.mkdir()
        select = Select(**{"rounds": 2, "protect_first": 0} | choice)
        plan = rounds.measure_rounds(
            pinned_model(dense_dir),
            dense_table,
            samples,
            samples[0],
            out,
            params=params_of(ratio=ratio, select=select, export=Export(compensate=compensate)),
            decision=tmp_path / "budget.json",
            scratch=tmp_path / scratch,
        )
        return plan, out / "scores-002.parquet"

    return prune


def values(table: Path | pa.Table) -> Values:
    return dict(read_scores(table).values)


def values_of_checkpoint(folder: Path, samples: list[Path], n_layers: int) -> Values:
    """Scores of a pruned checkpoint, measured as a dense one."""
    pinned = pinned_model(folder, n_layers=n_layers)
    return values(rounds.measure_without(pinned, samples, [], COLLECT, folder.parent / "reloaded"))


def test_a_round_measures_what_a_pruned_checkpoint_would(
    dense_dir: Path, samples: list[Path], dense_table: Path, tmp_path: Path
) -> None:
    plan = select(dense_table, method="manual", drop=[2, 4], protect_first=0)
    export_checkpoint(dense_dir, plan, tmp_path / "pruned")
    scores = rounds.measure_without(
        pinned_model(dense_dir), samples, [2, 4], COLLECT, tmp_path / "bypassed"
    )
    assert values(scores) == values_of_checkpoint(tmp_path / "pruned", samples, LAYERS - 2)
    assert read_scores(scores).kept_layers == (0, 1, 3, 5)


def test_the_plan_is_that_of_the_written_tables(run: Run, dense_table: Path) -> None:
    plan, table = run()
    choice = {"method": "shortgpt", "ratio": 0.34, "rounds": 2, "protect_first": 0}
    assert select(dense_table, **choice, later=[table]) == plan
    assert [group.round for group in plan.groups] == [1, 2]
    first = select(dense_table, method="shortgpt", drops=1, protect_first=0)
    assert read_scores(table).kept_layers == tuple(set(range(LAYERS)) - {*first.drop})


def test_with_compensation_a_round_measures_the_compensated_model(
    run: Run,
    dense_dir: Path,
    samples: list[Path],
    dense_table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = iter(range(10, 0, -1))  # every map lowers the loss
    monkeypatch.setattr(compensation.Repair, "loss", lambda *_: float(next(losses)))
    plan = select(dense_table, method="shortgpt", drops=1, protect_first=0)
    dense = Dense(Checkpoint(dense_dir), samples[0], Answers(dtype="float32"))
    replaced, _ = compensated(dense, plan.drop, 512, tmp_path / "weights")
    assert replaced
    export_checkpoint(dense_dir, plan, tmp_path / "pruned", replaced=replaced)
    expected = values_of_checkpoint(tmp_path / "pruned", samples, LAYERS - 1)
    assert values(run(compensate="lstsq")[1]) == expected
    assert values(run("plain")[1]) != expected


def test_an_interrupted_chain_resumes_at_its_last_round(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = interrupt(monkeypatch, rounds, call=2, name="measure_without")
    with pytest.raises(KeyboardInterrupt):
        run(rounds=3, ratio=0.5)
    resumed = run(rounds=3, ratio=0.5)[0]
    assert [len(dropped) for _, _, dropped, *_ in calls] == [1, 2, 2]
    assert run(rounds=3, ratio=0.5)[0] == resumed
    assert len(calls) == 3


def healings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any, list[int]]]:
    """Record each healing's weights before and after it, by their dense names, and its drops."""
    heal, records = rounds.heal_locally, []

    def recording(
        dense: Any, pruned: Any, train: Any, out: Path, *args: Any, **options: Any
    ) -> None:
        heal(dense, pruned, train, out, *args, **options)
        plan = options["plan"]
        records.append((*(dense_names(f, plan) for f in (pruned.folder, out)), plan.drop))

    monkeypatch.setattr(rounds, "heal_locally", recording)
    return records


def dense_names(folder: Path, plan: Plan) -> dict[str, torch.Tensor]:
    """The weights of a pruned checkpoint's layers by their names in the dense one."""
    return {
        f"{PREFIX}.{plan.keep[int(position)]}.{rest}": value
        for name, value in weights(folder).items()
        if name.startswith(PREFIX)
        for position, rest in [name.removeprefix(f"{PREFIX}.").split(".", 1)]
    }


def test_a_round_heals_from_the_weights_of_the_round_before(
    run: Run, dense_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = healings(monkeypatch)
    plan, table = run(rounds=3, ratio=0.5, heal_steps=3)
    (_, first, _), (start, last, drop) = records
    carried = load_file(table.with_name("healed.safetensors"))
    healed = [name for name, value in first.items() if not torch.equal(value, records[0][0][name])]
    assert healed and all(torch.equal(start[name], first[name]) for name in healed)
    assert all(torch.equal(value, last[name]) for name, value in carried.items())
    assert {*healed} < {*carried} and set(drop) < set(plan.drop)
    assert (plan.rounds, plan.heal_steps) == (3, 3)
    dense = weights(dense_dir)
    assert all(not torch.equal(carried[name], dense[name]) for name in healed)


def test_a_longer_chain_heals_its_new_rounds_alone(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_file(run("alone", rounds=3, ratio=0.5, heal_steps=2)[1].parent / HEALED)
    records = healings(monkeypatch)
    run(rounds=2, ratio=0.34, heal_steps=2)
    longer = load_file(run(rounds=3, ratio=0.5, heal_steps=2)[1].parent / HEALED)
    assert [len(drop) for *_, drop in records] == [1, 2]
    assert longer.keys() == whole.keys()
    assert all(torch.equal(value, whole[name]) for name, value in longer.items())


def test_healed_layers_depend_on_all_rounds_and_measured_ones_on_what_is_dropped() -> None:
    one, two = [([2], [1]), ([2, 4], [1, 3])], [([4], [3]), ([2, 4], [1, 3])]
    healed, plain = params_of(select=Select(heal_steps=1)), params_of()
    assert rounds._name(one, healed) != rounds._name(two, healed)
    assert rounds._name(one, plain) == rounds._name(two, plain)


def test_with_compensation_a_later_round_is_fitted_from_the_healed_layers(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = interrupt(monkeypatch, rounds, name="compensated")
    table = run(rounds=3, ratio=0.5, heal_steps=2, compensate="lstsq")[1]
    (*_, first), (*_, second) = calls
    assert first is None
    assert load_file(second).keys() < load_file(table.parent / HEALED).keys()


def test_tuned_layers_are_healed_before_the_next_measurement(run: Run, tmp_path: Path) -> None:
    plain = values(run("plain")[1])
    plan, table = run("healed", heal_steps=3)
    healed = values(table)
    assert healed.keys() == plain.keys() and healed != plain
    assert len(plan.drop) == 2
    assert not list((tmp_path / "healed").glob("*/"))  # no checkpoint remains


def test_healing_is_not_repeated_after_an_interruption(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = interrupt(monkeypatch, rounds, name="heal_locally")
    interrupt(monkeypatch, rounds, call=1, name="measure_without")
    with pytest.raises(KeyboardInterrupt):
        run(heal_steps=2)
    run(heal_steps=2)
    assert len(calls) == 1


def test_healing_starts_from_the_new_weights(
    dense_dir: Path, samples: list[Path], tmp_path: Path
) -> None:
    end = "language_model.layers.1.mlp.down_proj.weight"
    name, file = next(item for item in tensor_files(dense_dir).items() if item[0].endswith(end))
    weight = 2 * load_file(file)[name]
    save_file({name: weight}, tmp_path / "new.safetensors")
    rounds.heal_so_far(
        pinned_model(dense_dir),
        Choice(groups=(), drop=frozenset({2}), tune=frozenset({1})),
        samples[0],
        params_of(select=Select(heal_steps=1), heal=Heal(local_learning_rate=1e-12)),
        tmp_path / "work",
        tmp_path / "healed.safetensors",
        {name: tmp_path / "new.safetensors"},
    )
    healed_weight = load_file(tmp_path / "healed.safetensors")[name]
    torch.testing.assert_close(healed_weight, weight, rtol=0, atol=1e-9)


def test_a_choice_without_tuned_neighbours_cannot_be_healed(
    dense_dir: Path, tmp_path: Path
) -> None:
    choice = Choice(groups=(), drop=frozenset({2}), tune=frozenset())
    params = params_of(select=Select(heal_steps=1))
    with pytest.raises(InputError, match=r"select\.heal_steps: no tuned layer"):
        rounds.heal_so_far(pinned_model(dense_dir), choice, tmp_path, params, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("changes", "shared"),
    [
        ({"ratio": 0.5}, True),
        ({"method": "interlace"}, True),
        ({"select": Select(rounds=5)}, True),
        ({"heal": Heal(local_learning_rate=1.0)}, True),
        ({"export": Export(compensate_samples=7)}, True),
        ({"dtype": "bfloat16"}, False),
        ({"select": Select(heal_steps=1)}, False),
        ({"export": Export(compensate="lstsq")}, False),
    ],
)
def test_chains_share_tables_unless_they_measure_otherwise(
    changes: dict[str, Any], shared: bool
) -> None:
    params = params_of()
    options = rounds.measuring_options(params.model_copy(update=changes))
    assert (options == rounds.measuring_options(params)) == shared
