"""SLEB's order of removal and Taylor importance, against slow versions and interruptions."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import answered_samples
import models
import pyarrow.parquet as pq
import pytest
import torch
from answered_samples import loss_of_pruned, slow_loss, snapshot
from click.testing import CliRunner
from interruptions import damage, interrupt
from sources_json import pinned_model, write_sources

from interlace.errors import ContractError, InputError
from interlace.measurements import sensitivity, set_losses
from interlace.measurements.sensitivity import measure_method, removal_count
from interlace.model.chat import IGNORED, Inputs, collate, encode_training
from interlace.model.decoder import decoder_layers
from interlace.model.open import open_model
from interlace.params.measuring import LossCriterion, Sensitivity
from interlace.scores.table import SCHEMA
from interlace.system.documents import as_yaml
from interlace.system.outputs import write_json
from stages.sensitivity import main

LAYERS, SAMPLES = 6, 8
METHODS = ("sleb", "search", "taylor")
Run = Callable[..., Path]
ENDS = (0, 5)  # visual features are added before layers 1 and 2


def options(
    criterion: Literal["sleb", "search", "taylor"],
    protected: tuple[int, ...] = ENDS,
    **settings: Any,
) -> dict[str, Any]:
    values = {"max_ratio": 0.5, "samples": SAMPLES, "batch_tokens": 256} | settings
    needed = LossCriterion(criterion=criterion, protected=protected)
    return {"needed": needed, "params": Sensitivity(**values)}


@pytest.fixture(scope="session")
def run(dense: Any, processor: Any, calibration: Path, provenance: dict[str, str]) -> Run:
    """A function that measures into a folder; returns the folder of the output."""

    def measured_in(
        folder: Path, options: dict[str, Any], model: Any = dense, rows: Path = calibration
    ) -> Path:
        out, scratch = folder / "out", folder / "scratch"
        measure_method(
            model, processor, rows, out, scratch=scratch, provenance=provenance, **options
        )
        return out

    return measured_in


def written(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.fixture(scope="module")
def outputs(run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Output folders by method."""
    return {name: run(tmp_path_factory.mktemp(name), options(name)) for name in METHODS}


@pytest.fixture(scope="module")
def everything(processor: Any, calibration: Path) -> Inputs:
    """The rows that are measured, as one batch."""
    rows = sorted(pq.read_table(calibration).to_pylist(), key=lambda row: row["sample_id"])
    encoded = [encode_training(processor, row) for row in rows[:SAMPLES]]
    return collate(encoded, pad_token_id=0)


@pytest.fixture(scope="module")
def removal(dense: Any, everything: Inputs) -> list[dict[int, float]]:
    """Mean losses by candidate of three steps, each pruned model built and run whole."""
    tokens = int((everything["labels"] != IGNORED).sum())
    removed: list[int] = []
    steps = []
    for _ in range(3):
        candidates = [layer for layer in range(1, LAYERS - 1) if layer not in removed]
        losses = {i: loss_of_pruned(dense, everything, [*removed, i]) / tokens for i in candidates}
        removed.append(min(losses, key=losses.__getitem__))
        steps.append(losses)
    return steps


def values(folder: Path, criterion: str) -> dict[int, float]:
    rows = pq.read_table(folder / "scores.parquet").to_pylist()
    return {row["first"]: row["value"] for row in rows if row["criterion"] == criterion}


def test_sleb_removes_the_layer_whose_removal_gives_the_lowest_loss(
    outputs: dict[str, Path], removal: list[dict[int, float]], everything: Inputs
) -> None:
    layers = [min(losses, key=losses.__getitem__) for losses in removal]
    assert values(outputs["sleb"], "sleb") == {layer: step for step, layer in enumerate(layers)}
    assert values(outputs["sleb"], "sleb/loss") == {
        layer: pytest.approx(losses[layer], rel=1e-5)
        for layer, losses in zip(layers, removal, strict=True)
    }
    assert pq.read_table(outputs["sleb"] / "candidates.parquet").to_pylist() == [
        {
            "step": step,
            "layer": layer,
            "loss": pytest.approx(loss, rel=1e-5),
            "n_tokens": int((everything["labels"] != IGNORED).sum()),
            "removed": layer == layers[step],
        }
        for step, losses in enumerate(removal)
        for layer, loss in losses.items()
    ]


def test_search_writes_the_set_of_each_size_with_the_lowest_loss_of_a_full_pass(
    dense: Any, outputs: dict[str, Path], everything: Inputs
) -> None:
    tokens = int((everything["labels"] != IGNORED).sum())
    sets = [drop for k in (1, 2, 3) for drop in itertools.combinations(range(1, LAYERS - 1), k)]
    losses = {drop: loss_of_pruned(dense, everything, list(drop)) / tokens for drop in sets}
    bests = [min((s for s in sets if len(s) == k), key=losses.__getitem__) for k in range(1, 4)]
    for size, best in enumerate(bests, 1):
        expected = {layer: pytest.approx(losses[best], rel=1e-5) for layer in best}
        assert values(outputs["search"], f"search/{size}") == expected
    smallest = {i: min(k for k in (1, 2, 3) if i in bests[k - 1]) for best in bests for i in best}
    assert values(outputs["search"], "search") == smallest
    candidates = pq.read_table(outputs["search"] / "candidates.parquet").to_pylist()
    for row in candidates:
        if row["rows"] == "all":
            assert row["n_tokens"] == tokens
            assert row["loss"] == pytest.approx(losses.get(tuple(row["drop"]), row["loss"]), 1e-5)
        else:
            assert 0 < row["n_tokens"] < tokens
    screened = {tuple(row["drop"]) for row in candidates if row["rows"] == "screening"}
    assert screened == {(), *sets}  # few enough, here


def test_taylor_is_the_sum_of_weights_times_gradients(
    dense_dir: Path, outputs: dict[str, Path], everything: Inputs
) -> None:
    model = open_model(dense_dir, dtype="float32")
    (slow_loss(model, everything) / (everything["labels"] != IGNORED).sum()).backward()
    expected = {
        i: sum((w * w.grad).abs().sum().item() for w in layer.parameters())
        for i, layer in enumerate(decoder_layers(model))
    }
    assert values(outputs["taylor"], "taylor") == pytest.approx(expected, rel=1e-4)


def test_scores_have_the_contract_s_columns_and_say_how_they_were_measured(
    outputs: dict[str, Path], provenance: dict[str, str]
) -> None:
    for folder in outputs.values():
        table = pq.read_table(folder / "scores.parquet")
        assert table.schema.equals(SCHEMA)
        for row in table.to_pylist():
            assert (row["span"], row["standard_error"], row["n"]) == (1, None, SAMPLES)
        for path in folder.iterdir():
            metadata = {k.decode(): v.decode() for k, v in pq.read_schema(path).metadata.items()}
            expected = provenance | {"dtype": "float32", "rows_left_out": "0"}
            assert metadata.items() >= expected.items()


@pytest.mark.parametrize(
    ("method", "name", "finished"),
    [
        ("sleb", "_losses_of_batch", 4),
        ("search", "_losses_of_batch", 4),
        ("taylor", "layer_gradients", 2),
    ],
)
def test_an_interrupted_run_resumes_and_writes_the_same_bytes(
    dense: Any,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    name: str,
    finished: int,
) -> None:
    owner = sensitivity if method == "taylor" else set_losses
    batches = interrupt(monkeypatch, owner, name=name)
    expected = written(run(tmp_path / "uninterrupted", options(method)))
    total, structure = len(batches), snapshot(dense)
    with monkeypatch.context() as patch:
        interrupt(patch, owner, finished + 1, name)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "broken", options(method))
    assert not (tmp_path / "broken/out").exists()
    assert snapshot(dense) == structure
    batches.clear()
    assert written(run(tmp_path / "broken", options(method))) == expected
    assert [path.name for path in (tmp_path / "broken").iterdir()] == ["out"]  # no scratch is left
    assert len(batches) == total - finished > 0


@pytest.mark.parametrize("method", METHODS)
def test_damaged_work_is_done_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    expected = written(run(tmp_path / "uninterrupted", options(method)))
    with monkeypatch.context() as patch:
        interrupt(patch, sensitivity, 1, name="remove")
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "damaged", options(method))
    damage(tmp_path / "damaged/scratch")
    assert written(run(tmp_path / "damaged", options(method))) == expected


def test_taylor_keeps_its_sums_every_tenth_of_the_batches(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[str] = []
    save = sensitivity.save_file

    def saving(*args: Any, metadata: dict[str, str]) -> None:
        saved.append(metadata["batches"])
        save(*args, metadata=metadata)

    monkeypatch.setattr(sensitivity, "save_file", saving)
    rows = answered_samples.calibration(
        tmp_path / "rows", [models.row(seed, images=0) for seed in range(23)]
    )
    run(tmp_path, options("taylor", batch_tokens=1, samples=23), rows=rows)
    assert saved == ["3", "6", "9", "12", "15", "18", "21"]


def test_of_equal_layers_the_first_goes(dense_dir: Path, run: Run, tmp_path: Path) -> None:
    model = open_model(dense_dir, dtype="float32")
    for i in (3, 4):  # these return their input
        layer: Any = decoder_layers(model)[i]
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    out = run(tmp_path, options("sleb", (0, 1, 2, 5), max_ratio=0.2), model)
    losses = pq.read_table(out / "candidates.parquet")["loss"].to_pylist()
    assert losses[0] == losses[1]
    assert values(out, "sleb") == {3: 0}


@pytest.mark.parametrize(
    ("max_ratio", "n_layers", "protected", "expected"),
    [(0.4, 24, 4, 9), (0.29, 100, 2, 29), (0.9, 6, 4, 2), (0.5, 2, 0, 1)],
)
def test_sleb_removes_a_share_of_the_layers_but_no_protected_one(
    max_ratio: float, n_layers: int, protected: int, expected: int
) -> None:
    assert removal_count(max_ratio, n_layers, range(protected)) == expected


@pytest.mark.parametrize(("max_ratio", "protected"), [(0.1, 0), (0.9, 6)])
def test_a_share_that_removes_no_layer_is_refused(max_ratio: float, protected: int) -> None:
    message = rf"^sensitivity.max_ratio = {max_ratio}.* none of 6 layers.* {protected} are"
    with pytest.raises(InputError, match=message):
        removal_count(max_ratio, 6, range(protected))


@pytest.mark.parametrize(
    ("method", "layer", "message"),
    [
        ("sleb", 4, r"without layers 1 is not finite in float32"),
        ("taylor", 5, r"gradient of layer 5 \(.*\) is not finite in float32"),
    ],
)
def test_what_is_not_finite_is_named_with_its_layer(
    dense_dir: Path, run: Run, tmp_path: Path, method: str, layer: int, message: str
) -> None:
    model = open_model(dense_dir, dtype="float32")
    next(decoder_layers(model)[layer].parameters()).data.fill_(math.nan)
    with pytest.raises(ContractError, match=message):
        run(tmp_path, options(method), model)
    assert not (tmp_path / "out").exists()


def test_gradients_are_summed_in_float32_whatever_the_model_s_dtype(
    dense_dir: Path,
    run: Run,
    tmp_path: Path,
    outputs: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = interrupt(monkeypatch, sensitivity, name="_add_gradients")
    out = run(tmp_path, options("taylor"), open_model(dense_dir, dtype="bfloat16"))
    assert {total.dtype for sums, *_ in calls for total in sums.values()} == {torch.float32}
    expected = values(outputs["taylor"], "taylor")
    assert values(out, "taylor") == pytest.approx(expected, rel=0.2)  # bfloat16, by processor


@pytest.fixture
def project(
    dense_dir: Path, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with what the stage reads."""
    write_sources(tmp_path, model=pinned_model(dense_dir))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/calibration").symlink_to(calibration)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_params(folder: Path, criterion: Literal["sleb", "search", "taylor"] | None) -> None:
    """Write the parameters and the criterion that the method needs."""
    values = {
        "sensitivity": {"max_ratio": 0.5, "samples": SAMPLES},
        "measure": {"batch_tokens": 256},
    }
    (folder / "params.yaml").write_text(as_yaml(values))
    needed = options(criterion)["needed"].model_dump(mode="json") if criterion else None
    write_json(folder / "artifacts/params.json", {"loss_criterion": needed})


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_process_alone_writes_the_scores(
    project: Path, outputs: dict[str, Path], rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(project, "sleb")
    monkeypatch.setenv("RANK", str(rank))
    assert CliRunner().invoke(main, [], catch_exceptions=False).exit_code == 0
    out = project / "artifacts/sensitivity"
    assert out.exists() == (rank == 0)
    assert rank or values(out, "sleb") == values(outputs["sleb"], "sleb")


def test_other_methods_get_an_empty_table_without_torch(project: Path) -> None:
    write_params(project, None)
    code = (
        "import sys; from stages.sensitivity import main; main([], standalone_mode=False);"
        " print('torch' in sys.modules)"
    )
    root = str(Path(__file__).parents[2])
    line = "sensitivity: the method reads no loss on answers"
    process = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": root}, capture_output=True, text=True
    )
    assert (process.returncode, process.stdout) == (0, f"{line}\nFalse\n"), process.stderr
    [path] = (project / "artifacts/sensitivity").iterdir()
    table = pq.read_table(path)
    assert (path.name, table.num_rows) == ("scores.parquet", 0)
    assert table.schema.equals(SCHEMA)
