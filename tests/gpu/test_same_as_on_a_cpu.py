"""What runs on a GPU gives what it gives on a CPU; in float32 but where a test says otherwise."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import answered_samples
import family_models
import models
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from plans import PLAN
from training_runs import assert_ends, column, linked, start_stage, tune

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.measurements import sensitivity
from interlace.measurements.collect import collect
from interlace.model.answer_loss import AnswerLoss
from interlace.model.attention import PACKAGES
from interlace.model.chat import Inputs, collate, encode_prompt, encode_training
from interlace.model.generation import AnswerGenerator
from interlace.model.linear_attention import separate_samples
from interlace.model.open import open_model, open_processor
from interlace.params.exporting import Export
from interlace.params.measuring import Answers, Collect, LossCriterion, Sensitivity
from interlace.pruning.dense import Dense
from interlace.pruning.parity import check_parity
from interlace.training.packing import pack, sample_positions

pytestmark = pytest.mark.gpu
CLOSE = 1e-3
PROVENANCE = {"model": "org/name", "revision": "abc", "n_layers": "6", "deepstack_layers": "3"}


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the vision tower would round to TF32 on a GPU."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@contextmanager
def without_gpu() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    return answered_samples.calibration(folder / "rows", models.rows(8))


def on_both(work: Callable[[Path], Any], folder: Path) -> tuple[Any, Any]:
    """What some work gives on the GPU, and on the CPU."""
    for name in ("gpu", "cpu"):
        (folder / name).mkdir()
    gpu = work(folder / "gpu")
    with without_gpu():
        return gpu, work(folder / "cpu")


def on_device(batch: Inputs, model: Any) -> Inputs:
    return {name: value.to(model.device) for name, value in batch.items()}


def numbers(folder: Path) -> np.ndarray[Any, Any]:
    """All numbers of a folder of tables, in order."""
    table = pq.read_table(folder).to_pandas().select_dtypes("number")
    return table.to_numpy(dtype=float)


def test_similarities(dense_dir: Path, processor: Any, rows: Path, tmp_path: Path) -> None:
    def work(folder: Path) -> Any:
        model = open_model(dense_dir, dtype="float32")
        assert (model.device.type == "cuda") == (folder.name == "gpu")
        params = Collect(batch_tokens=256, max_span=3, pooled="none")
        files = {"scratch": folder / "scratch", "provenance": PROVENANCE}
        collect(model, processor, [rows], folder / "out", params=params, **files)
        return numbers(folder / "out/similarity")

    gpu, cpu = on_both(work, tmp_path)
    assert gpu == pytest.approx(cpu, rel=CLOSE, abs=CLOSE, nan_ok=True)


@pytest.mark.parametrize("criterion", ["sleb", "search", "taylor"])
def test_losses_without_layers(
    criterion: Any, dense_dir: Path, processor: Any, rows: Path, tmp_path: Path
) -> None:
    def work(folder: Path) -> Any:
        options = {
            "needed": LossCriterion(criterion=criterion, protected=(0, 5)),
            "params": Sensitivity(max_ratio=0.5, samples=8, batch_tokens=256),
            "scratch": folder / "scratch",
            "provenance": PROVENANCE,
        }
        model = open_model(dense_dir, dtype="float32")
        sensitivity.measure_method(model, processor, rows, folder / "out", **options)
        return sorted(path.name for path in (folder / "out").iterdir()), numbers(folder / "out")

    (gpu_files, gpu), (cpu_files, cpu) = on_both(work, tmp_path)
    assert gpu_files == cpu_files
    assert gpu == pytest.approx(cpu, rel=CLOSE, abs=CLOSE, nan_ok=True)


@pytest.mark.parametrize(("stored", "dtype"), [("keep", "bfloat16"), ("float32", "float32")])
def test_the_written_checkpoint_has_the_dense_models_states_to_the_bit(
    stored: Any, dtype: str, project: Path, rows: Path
) -> None:
    dense = Dense(Checkpoint(project / "dense"), rows, Answers())
    report = check_parity(project / "artifacts/pruned", dense, PLAN, Export(dtype=stored))
    assert (report.greatest_difference, report.dtype) == (0.0, dtype)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"packing": False, "gradient_checkpointing": False},
        {"workers": 2},
        {"lora_rank": 2, "lora_dropout": 0.0, "learning_rate": 1e-3},
        {"distill_logits": 1.0, "distill_states": 1.0},
        {"also": ["norms", "projector"]},
    ],
    ids=["packed", "padded", "with workers", "lora", "distilled", "beside layers"],
)
def test_training(changes: dict[str, Any], project: Path, tmp_path: Path) -> None:
    def work(folder: Path) -> Any:
        tune(project, folder, PLAN, **{"dtype": "float32", "learning_rate": 1e-3} | changes)
        return column(folder / "loss.csv")

    gpu, cpu = on_both(work, tmp_path)
    assert gpu == pytest.approx(cpu, rel=CLOSE)


def test_local_healing(project: Path, tmp_path: Path) -> None:
    def work(folder: Path) -> Any:
        tune(project, folder, PLAN, dtype="float32", local_steps=6, max_steps=0)
        return column(folder / "local.csv", "relative_error")

    gpu, cpu = on_both(work, tmp_path)
    assert gpu == pytest.approx(cpu, rel=CLOSE)


@pytest.mark.skipif(not importlib.util.find_spec("deepspeed"), reason="DeepSpeed is not installed")
@pytest.mark.parametrize(
    "changes",
    [{"zero_stage": 2}, {"zero_stage": 3}],
    ids=["ZeRO-2", "ZeRO-3"],
)
def test_training_with_deepspeed(changes: dict[str, Any], project: Path, tmp_path: Path) -> None:
    folder = linked(project, tmp_path / "stage")
    recipe = {"dtype": "float32", "learning_rate": 1e-3}
    assert_ends(start_stage(folder, **recipe | changes))
    with without_gpu():
        tune(project, tmp_path / "plain", PLAN, **recipe)
    expected = column(tmp_path / "plain/loss.csv")
    assert column(folder / "metrics/loss.csv") == pytest.approx(expected, rel=1e-2)  # TF32


def test_training_in_16_bits_follows_that_in_32(project: Path, tmp_path: Path) -> None:
    for name in ("float32", "bfloat16"):
        tune(project, tmp_path / name, PLAN, dtype=name, learning_rate=1e-3)
    expected = column(tmp_path / "float32/loss.csv")
    assert column(tmp_path / "bfloat16/loss.csv") == pytest.approx(expected, rel=5e-2)


def test_answers(dense_dir: Path, processor: Any, tmp_path: Path) -> None:
    def work(folder: Path) -> Any:
        generator = AnswerGenerator(open_model(dense_dir, dtype="float32"), processor)
        prompts = [encode_prompt(processor, row) for row in models.rows(6)]
        for prompt in prompts:
            prompt.pop("labels", None)
        return generator.generate(prompts, 8)

    gpu, cpu = on_both(work, tmp_path)
    assert gpu == cpu


@pytest.mark.parametrize("name", PACKAGES)
def test_samples_in_one_row_by_a_flash_attention(name: str, tmp_path: Path) -> None:
    """Heads of 64: the kernels take no smaller ones."""
    folder = models.tiny_qwen3_vl(tmp_path / "model", hidden=128, heads=2, kv_heads=1)
    try:
        kernels = open_model(folder, dtype="bfloat16", attn_implementation=name)
    except InputError as error:
        pytest.skip(str(error))
    processor = open_processor(folder)
    samples = [encode_training(processor, row) for row in models.rows(6)]
    packed = pack(samples, sample_positions(Checkpoint(folder)), pad_token_id=0, one_row=True)
    expected = sum(
        loss(open_model(folder, dtype="float32"), collate([sample], pad_token_id=0))
        for sample in samples
    )
    assert loss(kernels, packed) == pytest.approx(expected, rel=2e-2)


@pytest.mark.skipif(not importlib.util.find_spec("fla"), reason="no flash-linear-attention")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["qwen3_5", "qwen3_5_moe"])
def test_samples_in_one_row_by_the_kernels_of_linear_attention(
    name: str, dtype: str, tmp_path: Path
) -> None:
    folder = family_models.save(name, tmp_path / "model")
    picture, text = family_models.samples(name)
    samples = [picture, text, picture]
    model = separate_samples(open_model(folder, dtype=dtype))
    packed = pack(samples, sample_positions(Checkpoint(folder)), pad_token_id=2, one_row=True)
    single = sum(loss(model, collate([sample], pad_token_id=2)) for sample in samples)
    assert loss(model, packed) == pytest.approx(single, rel=1e-3 if dtype == "float32" else 2e-2)


@torch.no_grad()
def loss(model: Any, batch: Inputs) -> float:
    inputs = on_device(batch, model)
    labels = inputs.pop("labels")
    cast = {k: v.to(model.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
    return float(AnswerLoss(model)(cast, labels))
