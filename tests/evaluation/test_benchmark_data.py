from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interlace.errors import InputError
from interlace.evaluation.benchmarks.catalogue import BENCHMARKS, Benchmark
from interlace.evaluation.benchmarks.files import benchmark_files


def put(path: Path, benchmark: Benchmark, without: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [name for name in benchmark.columns if name != without]
    pq.write_table(pa.table({name: ["x"] for name in columns}), path)
    return path


LAYOUTS = [
    ("AI2D", "AI2D.parquet"),
    ("AI2D", "ai2d/data/test-00000-of-00001.parquet"),
    ("TextVQA", "TextVQA/data/validation-00000-of-00003.parquet"),
    ("VStar", "V*/data/test-00000-of-00001.parquet"),
    ("MMBench", "MMBench/en/dev-00000-of-00001.parquet"),
    ("ScienceQA", "ScienceQA/ScienceQA-FULL/test-00000-of-00001.parquet"),
    ("MIABench", "MIA-Bench/test.parquet"),
]


@pytest.mark.parametrize(("name", "file"), LAYOUTS)
def test_the_hubs_layout_is_found(name: str, file: str, tmp_path: Path) -> None:
    path = put(tmp_path / file, BENCHMARKS[name])
    put(path.with_name("train-00000-of-00001.parquet"), BENCHMARKS["POPE"])
    assert benchmark_files(tmp_path, BENCHMARKS[name]) == [path]


def test_every_shard_is_found_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "ChartQA/data"
    shards = [folder / f"test-0000{i}-of-00002.parquet" for i in (0, 1)]
    for path in reversed(shards):
        put(path, BENCHMARKS["ChartQA"])
    assert benchmark_files(tmp_path, BENCHMARKS["ChartQA"]) == shards


def test_only_the_files_of_the_right_configuration_are_found(tmp_path: Path) -> None:
    benchmark = BENCHMARKS["MMBench"]
    wanted = put(tmp_path / "MMBench/en/dev-00000-of-00001.parquet", benchmark)
    put(tmp_path / "MMBench/cn/dev-00000-of-00001.parquet", benchmark)
    put(tmp_path / "MMBench/data/dev-00000-of-00001.parquet", benchmark)
    assert benchmark_files(tmp_path, benchmark) == [wanted]


def test_the_card_says_where_files_are(tmp_path: Path) -> None:
    benchmark = BENCHMARKS["HRBench4K"]
    wanted = put(tmp_path / "HRBench4K/hr_bench_4k.parquet", benchmark)
    put(tmp_path / "HRBench4K/hr_bench_8k.parquet", benchmark)
    (tmp_path / "HRBench4K/README.md").write_text(
        "---\nconfigs:\n- config_name: hrbench_version_split\n  data_files:\n"
        "  - split: hrbench_4k\n    path: hr_bench_4k.parquet\n"
        "  - split: hrbench_8k\n    path: [hr_bench_8k.parquet]\n---\n# HR-Bench\n"
    )
    assert benchmark_files(tmp_path, benchmark) == [wanted]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        benchmark_files(tmp_path / "none", BENCHMARKS["POPE"])
    with pytest.raises(InputError, match=r"holds no POPE.parquet and no folder POPE"):
        benchmark_files(tmp_path, BENCHMARKS["POPE"])
    put(tmp_path / "POPE/data/train-0.parquet", BENCHMARKS["POPE"])
    with pytest.raises(InputError, match=r"no \.parquet file of split 'test'"):
        benchmark_files(tmp_path, BENCHMARKS["POPE"])
    put(tmp_path / "POPE/data/test-0.parquet", BENCHMARKS["POPE"], without="answer")
    with pytest.raises(InputError, match="not POPE's data: column 'answer' is missing"):
        benchmark_files(tmp_path, BENCHMARKS["POPE"])
