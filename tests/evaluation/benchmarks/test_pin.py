from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evaluation.published_rows import write_parquet
from models import rows

from interlace.evaluation.benchmarks.pin import pin_evaluation
from interlace.params.evaluating import Evaluate
from interlace.sources.pinned import PinnedData


def test_a_changed_file_changes_its_pin(write_rows: Callable[..., Path], tmp_path: Path) -> None:
    file, data = str(write_rows(rows(2))), tmp_path / "data"
    write_parquet("POPE", data / "POPE.parquet", 2)
    params = Evaluate(heldout=file, judged=(file,), benchmarks=("POPE",), data=str(data))
    pins = pin_evaluation(params, tmp_path / "hashes.json", tmp_path / "images.json")
    assert pins == pin_evaluation(params, tmp_path / "other.json", tmp_path / "images.json")
    assert all(pin and pin.files for pin in pins.values())
    write_rows(rows(3))
    write_parquet("POPE", data / "POPE.parquet", 3)
    new_pins = pin_evaluation(params, tmp_path / "hashes.json", tmp_path / "images.json")
    assert all(pins[name] != new_pins[name] for name in pins)


def test_benchmarks_from_the_hub_keep_its_clients_online(tmp_path: Path) -> None:
    pins = pin_evaluation(
        Evaluate(benchmarks=("POPE",)), tmp_path / "hashes.json", tmp_path / "images.json"
    )
    assert pins == {"heldout": None, "judged": None, "benchmarks": PinnedData(id="hub")}
