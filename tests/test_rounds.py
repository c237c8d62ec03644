"""Progressive pruning measures the smaller model, and can be repeated from what it kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from sources_json import pinned_model

from interlace import rounds
from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.safetensors import tensor_files
from interlace.errors import InputError
from interlace.methods.choice import Choice
from interlace.outputs import write_json
from interlace.params.choosing import Select
from interlace.params.exporting import Export
from interlace.params.healing import Heal, Recipe
from interlace.params.measuring import Answers, Collect
from interlace.params.rounds import RoundsParams
from interlace.plan.record import Plan
from interlace.pruning import compensation
from interlace.pruning.dense import Dense
from interlace.pruning.export import export
from interlace.pruning.new_weights import compensated
from interlace.rounds import measure_rounds, measure_without
from interlace.samples.rows import write_rows
from interlace.scores.table import read_scores
from interlace.selection.select import select

LAYERS = 6
COLLECT = Collect(dtype="float32")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("samples") / "calibration"
    own = {"domain": "native", "task": "native"}
    rows = [row | own | {"sample_id": f"{n:016x}"} for n, row in enumerate(models.rows(6))]
    write_rows(iter(rows), folder)
    return [folder]


@pytest.fixture(scope="module")
def dense_table(dense_dir: Path, samples: list[Path], tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("dense_table")
    table = measure_without(pinned_model(dense_dir), samples, [], COLLECT, folder / "scratch")
    pq.write_table(table, folder / "scores.parquet")
    return Path(folder / "scores.parquet")


def run(
    dense_dir: Path, samples: list[Path], table: Path, folder: Path, **choice: Any
) -> tuple[Plan, Path]:
    write_json(folder / "budget.json", None)
    ratio, compensate = choice.pop("ratio", 0.34), choice.pop("compensate", "none")
    asked = {"rounds": 2, "protect_first": 0} | choice
    params = RoundsParams(
        ratio=ratio,
        method="shortgpt",
        seed=0,
        select=Select(**asked),
        dtype="float32",
        finetune=RECIPE,
        export=Export(compensate=compensate),
    )
    out = folder / "rounds"
    out.mkdir(exist_ok=True)
    for leftover in out.iterdir():
        leftover.unlink()
    plan = measure_rounds(
        pinned_model(dense_dir),
        table,
        samples,
        samples[0],
        out,
        params=params,
        decision=folder / "budget.json",
        cache=folder / "cache",
    )
    return plan, out


RECIPE = Recipe(
    batch_size=4, micro_batch_size=4, max_length=512, min_pixels=None, max_pixels=None, workers=0
)


def values(table: pa.Table) -> dict[tuple[str, int, int], float]:
    return dict(read_scores(table).values)


def test_a_round_measures_what_a_pruned_checkpoint_would(
    dense_dir: Path, samples: list[Path], tmp_path: Path
) -> None:
    scores = read_scores(
        measure_without(pinned_model(dense_dir), samples, [], COLLECT, tmp_path / "dense")
    )
    plan = select(scores, method="manual", drop=[2, 4], protect_first=0)
    export(dense_dir, plan, tmp_path / "pruned")
    reloaded = pinned_model(tmp_path / "pruned", n_layers=LAYERS - 2)
    expected = measure_without(reloaded, samples, [], COLLECT, tmp_path / "reloaded")
    found = measure_without(
        pinned_model(dense_dir), samples, [2, 4], COLLECT, tmp_path / "bypassed"
    )
    assert values(found) == values(expected)
    assert read_scores(found).kept_layers == (0, 1, 3, 5)


def test_the_plan_is_that_of_the_written_tables(
    dense_dir: Path, samples: list[Path], dense_table: Path, tmp_path: Path
) -> None:
    plan, out = run(dense_dir, samples, dense_table, tmp_path)
    again = select(
        dense_table,
        method="shortgpt",
        ratio=0.34,
        rounds=2,
        protect_first=0,
        later=sorted(out.glob("*.parquet")),
    )
    assert again == plan
    assert [group.round for group in plan.groups] == [1, 2]
    assert len(plan.drop) == 2


def test_each_round_is_decided_on_the_model_that_the_last_one_left(
    dense_dir: Path, samples: list[Path], dense_table: Path, tmp_path: Path
) -> None:
    plan, out = run(dense_dir, samples, dense_table, tmp_path)
    first = select(dense_table, method="shortgpt", drops=1, protect_first=0).drop
    later = read_scores(next(out.glob("*.parquet")))
    assert list(later.kept_layers) == [i for i in range(LAYERS) if i not in first]
    tuned = select(dense_table, method="shortgpt", drops=1, protect_first=0).tune
    layer = dict(zip(later.kept_layers, later.of_span(1).values(), strict=True))
    free = {i: value for i, value in layer.items() if i not in tuned}
    assert set(plan.drop) - set(first) == {max(free, key=free.__getitem__)}


def test_with_compensation_a_round_measures_the_compensated_model(
    dense_dir: Path,
    samples: list[Path],
    dense_table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = iter(range(10, 0, -1))  # every map is taken
    monkeypatch.setattr(compensation._Repair, "loss", lambda *_: float(next(losses)))
    answers = Answers(dtype="float32")
    plan = select(dense_table, method="shortgpt", drops=1, protect_first=0)
    source = Dense(Checkpoint(dense_dir), samples[0], answers)
    replaced, _ = compensated(source, plan.drop, 512, tmp_path / "weights")
    export(dense_dir, plan, tmp_path / "pruned", replaced=replaced)
    reloaded = pinned_model(tmp_path / "pruned", n_layers=LAYERS - 1)
    expected = measure_without(reloaded, samples, [], COLLECT, tmp_path / "reloaded")
    _, out = run(dense_dir, samples, dense_table, tmp_path, compensate="lstsq")
    assert replaced
    assert values(pq.read_table(next(out.glob("*.parquet")))) == values(expected)
    _, out = run(dense_dir, samples, dense_table, tmp_path)
    assert values(pq.read_table(next(out.glob("*.parquet")))) != values(expected)


def test_a_round_that_was_measured_is_not_measured_again(
    dense_dir: Path,
    samples: list[Path],
    dense_table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan, out = run(dense_dir, samples, dense_table, tmp_path)
    before = next(out.glob("*.parquet")).read_bytes()
    monkeypatch.setattr(rounds, "measure_without", lambda *_: pytest.fail("measured again"))
    again, out = run(dense_dir, samples, dense_table, tmp_path)
    assert again == plan
    assert next(out.glob("*.parquet")).read_bytes() == before


def test_an_interrupted_chain_goes_on_at_its_last_round(
    dense_dir: Path,
    samples: list[Path],
    dense_table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[list[int]] = []
    real = rounds.measure_without

    def fails_in_the_third(source: Any, rows: Any, dropped: list[int], *rest: Any) -> pa.Table:
        measured.append(dropped)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return real(source, rows, dropped, *rest)

    monkeypatch.setattr(rounds, "measure_without", fails_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(dense_dir, samples, dense_table, tmp_path, rounds=3, ratio=0.5)
    run(dense_dir, samples, dense_table, tmp_path, rounds=3, ratio=0.5)
    assert [len(dropped) for dropped in measured] == [1, 2, 2]


def test_survivors_are_healed_before_the_next_measurement(
    dense_dir: Path, samples: list[Path], dense_table: Path, tmp_path: Path
) -> None:
    (tmp_path / "plain").mkdir()
    _, plain = run(dense_dir, samples, dense_table, tmp_path / "plain")
    before = values(pq.read_table(next(plain.glob("*.parquet"))))
    (tmp_path / "healed").mkdir()
    plan, out = run(dense_dir, samples, dense_table, tmp_path / "healed", heal_steps=3)
    after = values(pq.read_table(next(out.glob("*.parquet"))))
    assert after.keys() == before.keys() and after != before
    assert len(plan.drop) == 2
    assert not list((tmp_path / "healed/cache").glob("*/"))  # no checkpoint stays behind


def test_healing_in_rounds_is_done_once(
    dense_dir: Path,
    samples: list[Path],
    dense_table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = rounds.measure_without

    def interrupted(*_: Any) -> pa.Table:
        raise KeyboardInterrupt

    monkeypatch.setattr(rounds, "measure_without", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(dense_dir, samples, dense_table, tmp_path, heal_steps=2)
    monkeypatch.setattr(rounds, "measure_without", real)
    monkeypatch.setattr(rounds, "heal_locally", lambda *_, **__: pytest.fail("healed again"))
    run(dense_dir, samples, dense_table, tmp_path, heal_steps=2)


def test_healing_in_rounds_starts_from_the_new_weights(
    dense_dir: Path, samples: list[Path], tmp_path: Path
) -> None:
    stored = {name: file for name, file in tensor_files(dense_dir).items() if "layers.1." in name}
    name = next(
        name for name in stored if name.endswith("language_model.layers.1.mlp.down_proj.weight")
    )
    new = 2 * load_file(stored[name])[name]
    save_file({name: new}, tmp_path / "new.safetensors")
    params = RoundsParams(
        ratio=0.3,
        method="shortgpt",
        seed=0,
        select=Select(heal_steps=1),
        finetune=RECIPE,
        heal=Heal(local_learning_rate=1e-12),
    )
    made = Choice(groups=(), drop=frozenset({2}), tune=frozenset({1}))
    replaced = {name: tmp_path / "new.safetensors"}
    healed = rounds.heal_so_far(
        pinned_model(dense_dir), made, samples[0], params, tmp_path / "work", replaced
    )
    found = load_file(tensor_files(healed)[name])[name]
    torch.testing.assert_close(found, new, rtol=0, atol=1e-9)


def test_a_method_without_tuned_neighbours_cannot_be_healed_in_rounds(
    dense_dir: Path, tmp_path: Path
) -> None:
    made = Choice(groups=(), drop=frozenset({2}), tune=frozenset())
    params = RoundsParams(ratio=0.3, method="shortgpt", seed=0, select=Select(heal_steps=1))
    with pytest.raises(InputError, match=r"select.heal_steps: no tuned layer lies beside"):
        rounds.heal_so_far(pinned_model(dense_dir), made, tmp_path, params, tmp_path)
