"""`interlace plan-run` in a project's folder."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from huggingface_hub import constants

from interlace.cli import main
from interlace.project.forecast import machine
from interlace.project.profiles import read_profile
from interlace.system.documents import as_yaml

ROOT = Path(__file__).parents[3]
SHA = "0123456789abcdef0123456789abcdef01234567"
TINY = {"model": {"id": "model"}, "data": {"id": "rows.parquet"}, "dtype": "float32"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, on a machine whose cores are not timed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "_core_flops", lambda: 1e11)
    return tmp_path


def plan(*words: str) -> Result:
    return CliRunner().invoke(main, ["plan-run", *words], catch_exceptions=False)


def write(**changes: Any) -> None:
    Path("params.yaml").write_text(as_yaml(TINY | changes))


def project(dense_dir: Path, **changes: Any) -> None:
    """A tiny model, sixty rows, and held-out ones."""
    Path("model").symlink_to(dense_dir)
    for name, rows in (("rows", models.rows(60)), ("test", models.rows(9))):
        pq.write_table(pa.Table.from_pylist(rows), f"{name}.parquet")
    write(evaluate={"heldout": "test.parquet"}, **changes)


SIZES = {  # layers, width, width of the MLP, heads; the size of the tower
    "2B": (28, 2048, 6144, 16, "small"),
    "4B": (36, 2560, 9728, 32, "small"),
    "8B": (36, 4096, 12_288, 32, "large"),
}
TOWERS: dict[str, dict[str, Any]] = {
    "small": {
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "deepstack_visual_indexes": [5, 11, 17],
    },
    "large": {
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "deepstack_visual_indexes": [8, 16, 24],
    },
}


def publish(hub: Path, size: str) -> None:
    """Put the configuration of a Qwen3-VL-Instruct into the hub's cache, and nothing else."""
    from transformers import Qwen3VLConfig

    layers, width, mlp, heads, tower = SIZES[size]
    repository = hub / f"models--Qwen--Qwen3-VL-{size}-Instruct"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(SHA)
    text = {"hidden_size": width, "intermediate_size": mlp, "num_hidden_layers": layers}
    text |= {"num_attention_heads": heads, "num_key_value_heads": 8, "head_dim": 128}
    config = Qwen3VLConfig(
        text_config=text | {"vocab_size": 151_936},
        vision_config=TOWERS[tower] | {"out_hidden_size": width},
        tie_word_embeddings=size != "8B",
    )
    config.save_pretrained(repository / "snapshots" / SHA)


def error_of(result: Result) -> str:
    assert result.exit_code == 2
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert result.stderr.splitlines()[-1] == line
    return line


def cells(result: Result, stage: str) -> list[str]:
    (line,) = (line for line in result.stdout.splitlines() if line.startswith(stage))
    return line.removeprefix(stage).split()


def test_a_project_is_forecast_stage_by_stage(dense_dir: Path) -> None:
    project(dense_dir, method="sleb", reference="dense-ft", answers={"source": "dense"})
    before = sorted(Path().rglob("*"))
    result = plan("--no-measure", "--gpus", "0")
    assert result.exit_code == 0, result.output
    named = re.findall(r"^([a-z]+(?: [a-z]+)?)  +[\d.]", result.stdout, re.MULTILINE)
    assert named == [
        *("sample", "answers", "collect", "sensitivity", "export", "finetune", "reference"),
        *("evaluate dense", "evaluate pruned", "evaluate tuned", "evaluate reference"),
        *("ttft", "total"),
    ]
    assert "1 of 6 layers go" in result.stdout and "60 rows" in result.stdout
    assert sorted(Path().rglob("*")) == before
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_model_of_text_alone_has_no_images(dense_dir: Path) -> None:
    project(dense_dir)
    Path("model").unlink()
    models.tiny_llama(Path("model"), layers=6)
    rows = [models.row(seed, images=0) for seed in range(30)]
    pq.write_table(pa.Table.from_pylist([*rows, *models.rows(30)]), "rows.parquet")
    result = plan("--card", "L4")
    assert result.exit_code == 0 and "60 rows" in result.stdout, result.output


def test_rates_are_timed_on_the_model_where_it_is_here(dense_dir: Path) -> None:
    project(dense_dir)
    assert "timed here on the model" in plan().stdout
    assert "stated, not timed here" in plan("--card", "H100").stdout


def test_the_published_profile_needs_no_more_than_the_models_configuration(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    publish(folder / "hub", "8B")
    shutil.copyfile(ROOT / "profiles/qwen3-vl-8b.yaml", "params.yaml")
    result = plan("--card", "h100", "--disk", "2000")
    assert result.exit_code == 0, result.output
    assert "8 x H100" in result.stdout and "243,000 rows" in result.stdout
    assert "9 of 36 layers go and 9 are tuned" in result.stdout
    weights = 8_767_123_696 * 2 / 2**30
    assert float(cells(result, "collect")[1]) == pytest.approx(weights, abs=0.01)
    small = error_of(plan("--card", "A100-40", "--gpus", "1", "--disk", "2000"))
    assert "set launch to python -m" in small and "finetune needs" in small
    (advice,) = re.findall(r"finetune needs [^;]+; set ([^(]+) \(", small)
    text = Path("params.yaml").read_text()
    for name, value in (pair.split(" to ") for pair in advice.split(" and ")):
        section, key = name.split(".")
        text = re.sub(rf"^  {key}: .*\n", "", text, flags=re.MULTILINE)
        text = text.replace(f"\n{section}:\n", f"\n{section}:\n  {key}: {value}\n")
    Path("params.yaml").write_text(text)
    assert "finetune needs" not in error_of(plan("--card", "A100-40", "--gpus", "1"))


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml")))
def test_a_profile_expects_the_hours_of_its_forecast(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = read_profile(name)
    if profile.comes_without_model:
        pytest.skip("its hours are those of a run")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    publish(folder / "hub", profile.params.model.id.split("-")[-2])
    Path("params.yaml").write_text(profile.text)
    Path("data").symlink_to(ROOT / "data")  # the probes' tasks
    result = plan("--card", "H100", "--disk", "2000")
    assert result.exit_code == 0, result.output
    gpus = f"{profile.gpus} H100s" if profile.gpus.isdigit() else "1 H100"
    assert profile.hours == f"~{float(cells(result, 'total')[-1]):.1f} ({gpus})"


@pytest.mark.parametrize(
    ("words", "changes", "message"),
    [
        ("--card H1000", {}, "--card = 'H1000': not a known card; did you mean H100?"),
        ("--gpus 2", {}, "--gpus = 2: there is no GPU here to ask; add --card"),
        ("", {"data": {"id": "you/rows"}}, "data.id = you/rows: its rows are not here"),
        ("", {"data": {"id": "./none"}}, "data.id = ./none: no such file or folder"),
        ("", {"model": {"id": "./none"}}, "model.id = ./none: no such folder"),
        ("", {"ratio": 0.01}, "ratio"),
        ("", {"evaluate": {"heldout": "none.parquet"}}, "none.parquet: no such file"),
        ("--memory 0.5", {}, "collect needs 1.0 GiB of memory in each process, and has 0.5 GiB"),
        ("--disk 0.001", {}, "the disk needs"),
        (
            "--gpus 3 --memory 24 --tflops 100",
            {"launch": "torchrun --nproc-per-node 3 -m"},
            "finetune.batch_size = 32 does not divide into 3 processes",
        ),
        ("--params other.yaml", {}, "other.yaml: no such file"),
    ],
)
def test_bad_input_is_named(
    words: str, changes: dict[str, Any], message: str, dense_dir: Path
) -> None:
    project(dense_dir)
    write(**changes)
    assert message in error_of(plan("--no-measure", *words.split()))


def test_weights_that_are_not_here_are_not_timed(dense_dir: Path) -> None:
    project(dense_dir)
    Path("model").unlink()
    Path("model").mkdir()
    for file in dense_dir.iterdir():
        if file.suffix != ".safetensors":
            shutil.copyfile(file, Path("model") / file.name)
    assert "--measure: the weights of model are not here" in error_of(plan("--measure"))
    assert "60 rows" in plan("--no-measure").stdout


def test_without_a_processor_letters_are_counted(dense_dir: Path) -> None:
    project(dense_dir)
    Path("model").unlink()
    Path("model").mkdir()
    shutil.copyfile(dense_dir / "config.json", "model/config.json")
    assert "the model's processor is not here" in " ".join(plan().stdout.split())
