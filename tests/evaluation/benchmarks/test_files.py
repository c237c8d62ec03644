from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interlace.errors import InputError
from interlace.evaluation.benchmarks.catalogue import BENCHMARKS, find_benchmark
from interlace.evaluation.benchmarks.files import benchmark_files


def write(path: Path, name: str, missing: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [column for column in BENCHMARKS[name].columns if column != missing]
    image = ["x"] if name.startswith("HRBench") else pa.array([{"bytes": b"x", "path": None}])
    texts = {column: ["x"] for column in columns}
    pq.write_table(pa.table(texts | ({"image": image} if "image" in texts else {})), path)
    return path


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("AI2D", ["AI2D.parquet"]),
        ("TextVQA", ["TextVQA/data/validation-00000-of-00003.parquet"]),
        ("VStar", ["V*/data/test-00000-of-00001.parquet"]),
        ("MMBench", ["MMBench/en/dev-00000-of-00001.parquet"]),
        ("MIABench", ["MIA-Bench/test.parquet"]),
        ("ChartQA", [f"ChartQA/data/test-0000{i}-of-00002.parquet" for i in (0, 1)]),
    ],
)
def test_files_are_found_in_the_hubs_layout(name: str, files: list[str], tmp_path: Path) -> None:
    shards = [write(tmp_path / file, name) for file in reversed(files)][::-1]
    write(shards[0].with_name("train-00000-of-00001.parquet"), "POPE")
    assert benchmark_files(tmp_path, BENCHMARKS[name]) == shards


@pytest.mark.parametrize(
    ("name", "file", "shared"),
    [
        ("POPE-F1", "POPE.parquet", True),
        ("OCRBench-Enlarged", "OCRBench/data/test-00000-of-00001.parquet", True),
        ("ScienceQA-IMG", "ScienceQA/ScienceQA-IMG/test-00000-of-00001.parquet", True),
        ("ScienceQA-IMG", "ScienceQA.parquet", False),  # all questions
        ("MMBench-V1.1", "MMBench.parquet", False),  # other questions
    ],
)
def test_a_variant_of_the_same_rows_shares_the_original_s_data(
    name: str, file: str, shared: bool, tmp_path: Path
) -> None:
    path = write(tmp_path / file, name)
    if not shared:
        with pytest.raises(InputError, match=f"holds no {name}"):
            benchmark_files(tmp_path, BENCHMARKS[name])
        path = write(tmp_path / f"{name}.parquet", name)
    assert benchmark_files(tmp_path, BENCHMARKS[name]) == [path]


def test_files_of_other_configurations_are_skipped(tmp_path: Path) -> None:
    english, *_ = (
        write(tmp_path / f"MMBench/{folder}/dev-00000-of-00001.parquet", "MMBench")
        for folder in ("en", "cn", "data")
    )
    assert benchmark_files(tmp_path, BENCHMARKS["MMBench"]) == [english]


def test_the_card_names_the_files(tmp_path: Path) -> None:
    path = write(tmp_path / "HRBench4K/hr_bench_4k.parquet", "HRBench4K")
    write(tmp_path / "HRBench4K/hr_bench_8k.parquet", "HRBench4K")
    (tmp_path / "HRBench4K/README.md").write_text(
        "---\nconfigs:\n- config_name: hrbench_version_split\n  data_files:\n"
        "  - split: hrbench_4k\n    path: hr_bench_4k.parquet\n"
        "  - split: hrbench_8k\n    path: [hr_bench_8k.parquet]\n---\n# HR-Bench\n"
    )
    assert benchmark_files(tmp_path, BENCHMARKS["HRBench4K"]) == [path]


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("V*", "VStar"), ("mia-bench", "MIABench"), ("HRBench 4K", "HRBench4K"), ("ai2d", "AI2D")],
)
def test_case_and_punctuation_of_a_name_do_not_count(spelling: str, name: str) -> None:
    assert find_benchmark(spelling).name == name


def test_missing_data_is_named(tmp_path: Path) -> None:
    pope = BENCHMARKS["POPE"]
    with pytest.raises(InputError, match=r"POPE\.parquet"):
        benchmark_files(tmp_path, pope)
    write(tmp_path / "POPE/data/train-0.parquet", "POPE")
    with pytest.raises(InputError, match="split 'test'"):
        benchmark_files(tmp_path, pope)
    write(tmp_path / "POPE/data/test-0.parquet", "POPE", missing="answer")
    with pytest.raises(InputError, match="POPE's data: column 'answer' is missing"):
        benchmark_files(tmp_path, pope)
