from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation.published_rows import write_parquet
from models import rows

from interlace.evaluation.benchmarks.pin import pin_evaluation
from interlace.params.evaluating import Evaluate
from interlace.sources.pinned import PinnedData


def test_a_changed_file_changes_what_is_pinned(
    write_rows: Callable[[list[dict[str, Any]]], Path], tmp_path: Path
) -> None:
    file = str(write_rows(rows(2)))
    write_parquet("POPE", tmp_path / "data/POPE.parquet", 2)
    data = str(tmp_path / "data")
    params = Evaluate(heldout=file, judged=(file,), benchmarks=("POPE",), data=data)
    before = pin_evaluation(params, tmp_path / "hashes.json")
    assert before == pin_evaluation(params, tmp_path / "other.json")
    assert all(source and source.files for source in before.values())
    write_rows(rows(3))
    write_parquet("POPE", tmp_path / "data/POPE.parquet", 3)
    after = pin_evaluation(params, tmp_path / "hashes.json")
    assert all(before[name] != after[name] for name in before)


def test_benchmarks_from_the_hub_keep_its_clients_online(tmp_path: Path) -> None:
    found = pin_evaluation(Evaluate(benchmarks=("POPE",)), tmp_path / "hashes.json")
    assert found == {
        "heldout": None,
        "judged": None,
        "benchmarks": PinnedData(id="hub"),
    }
