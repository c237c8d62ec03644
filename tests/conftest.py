"""Tiny models, built once and shared by all tests. Nothing here may use a network."""

from __future__ import annotations

import os

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "DO_NOT_TRACK": "1"}
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models, and one process per core

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Properties say what is right, not how fast: the machine may be busy
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

LAYERS = 6


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of long tests, then those of many, so that all workers end together."""
    counts = Counter(item.path for item in items)
    long = {
        item.path
        for item in items
        if any(item.get_closest_marker(name) for name in ("e2e", "slow"))
    }
    items.sort(key=lambda item: (item.path not in long, -counts[item.path], item.path))


@pytest.fixture(scope="session")
def dense_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved Qwen3-VL of six decoder layers, visual features added after the first three."""
    import models

    return models.tiny_qwen3_vl(tmp_path_factory.mktemp("dense"), layers=LAYERS)


@pytest.fixture(scope="session")
def dense(dense_dir: Path) -> Any:
    """That model, opened; tests must leave it as it is."""
    from interlace.model.open import open_model

    return open_model(dense_dir, dtype="float32")


@pytest.fixture(scope="session")
def processor(dense_dir: Path) -> Any:
    from interlace.model.open import open_processor

    return open_processor(dense_dir)


@pytest.fixture(scope="session")
def project(dense_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the inputs of `finetune`: both checkpoints, the plan, the training rows."""
    import models
    import pyarrow as pa
    import pyarrow.parquet as pq
    from drawn_rows import Draw
    from sources_json import pinned_model, write_sources
    from training_runs import PLAN

    from interlace.pruning.export import export_checkpoint
    from interlace.samples.own_answers import write_labels
    from interlace.system.outputs import write_json

    folder = tmp_path_factory.mktemp("project")
    (folder / "dense").symlink_to(dense_dir)
    export_checkpoint(dense_dir, PLAN, folder / "artifacts/pruned", max_shard_mb=0.05)
    write_json(folder / "artifacts/plan.json", PLAN.model_dump())
    write_sources(folder, model=pinned_model(dense_dir))
    pq.write_table(pa.Table.from_pylist(models.rows(16)), folder / "rows.parquet")
    Draw(folder / "data")(folder / "rows.parquet")
    write_labels(folder / "data/answers")
    return folder


@pytest.fixture(scope="session")
def tuned_run(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of end-to-end training, with its scratch folder."""
    from training_runs import tune

    out = tmp_path_factory.mktemp("tuned")
    tune(project, out)
    return out


@pytest.fixture(scope="session")
def healed_run(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of local healing alone, with its scratch folder."""
    from training_runs import LOCAL_ONLY, tune

    out = tmp_path_factory.mktemp("healed")
    tune(project, out, **LOCAL_ONLY)
    return out


@pytest.fixture(scope="session")
def pruned_dir(dense_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That model without layers 3 and 5, in files of at most 0.05 MiB; 2 and 4 are to be tuned."""
    import plans

    from interlace.pruning.export import export_checkpoint

    out = tmp_path_factory.mktemp("export") / "pruned"
    export_checkpoint(dense_dir, plans.PLAN, out, max_shard_mb=0.05)
    return out
