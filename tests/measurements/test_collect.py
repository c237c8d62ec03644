"""`collect`: its output, how it resumes, and what stops it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from interruptions import interrupt

from interlace.data.probes import ProbeTask, probe
from interlace.errors import ContractError, InputError
from interlace.measurements import collect as collecting
from interlace.measurements import tables, windows
from interlace.measurements.collect import Collected, collect
from interlace.measurements.cosines import measure_batch
from interlace.model.chat import Inputs, collate, encode_prompt
from interlace.model.open import open_model
from interlace.outputs import remove, whole
from interlace.params.measuring import Collect
from interlace.samples.rows import iterate, write_rows

ROWS, LAYERS, WIDTH = 12, 6, 32
Run = Callable[..., Path]


def batch_of(processor: Any, row: dict[str, Any]) -> Inputs:
    return collate([encode_prompt(processor, row)], pad_token_id=0)


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory, calibration: Path) -> Path:
    """Two tasks asked about the images of four calibration rows."""
    folder = tmp_path_factory.mktemp("probes") / "probes"
    tasks = (
        ProbeTask(task="answer", domain="math", prompt="left {question} right"),
        ProbeTask(task="caption", domain="nonmath", prompt="What is in this image"),
    )
    rows = [row for row in iterate(calibration) if row["images"]][:4]
    write_rows((probe(row, task) for row in rows for task in tasks), folder)
    return folder


@pytest.fixture(scope="module")
def run(dense: Any, processor: Any, calibration: Path, provenance: dict[str, str]) -> Run:
    """A function that collects into a folder; returns the folder of the output."""

    def collected_in(folder: Path, *rows: Path, model: Any = dense, **params: Any) -> Path:
        options = Collect(**({"batch_tokens": 256, "max_span": 3, "pooled": "all"} | params))
        collect(
            model,
            processor,
            rows or [calibration],
            folder / "out",
            params=options,
            scratch=folder / "scratch",
            provenance=provenance,
        )
        return folder / "out"

    return collected_in


def written(out: Path) -> dict[str, bytes]:
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def similarity(out: Path) -> pd.DataFrame:
    return pq.read_table(out / "similarity").to_pandas()


@pytest.fixture(scope="module")
def collected(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("collected"))


def test_without_a_longest_span_all_are_measured(run: Run, tmp_path: Path) -> None:
    assert len(similarity(run(tmp_path, max_span=None))) == ROWS * LAYERS * (LAYERS + 1) // 2


def test_calibration_rows_and_probes_are_measured_in_order(
    run: Run, calibration: Path, probes: Path, collected: Path, tmp_path: Path
) -> None:
    columns = ["sample_id", "domain", "task"]
    rows = [*iterate(calibration), *iterate(probes)]
    table = similarity(run(tmp_path, calibration, probes))
    found = table[columns].drop_duplicates().to_numpy().tolist()
    assert found == [[row[name] for name in columns] for row in rows]
    native = table[table["domain"] == "native"]
    np.testing.assert_allclose(native["cosine"], similarity(collected)["cosine"], atol=1e-5)


def test_without_rows_there_is_nothing_to_measure(run: Run, tmp_path: Path) -> None:
    write_rows(iter(()), tmp_path / "empty")
    with pytest.raises(InputError, match=r"empty: no rows to measure"):
        run(tmp_path, tmp_path / "empty")


def test_similarity_holds_what_was_measured(
    collected: Path, dense: Any, processor: Any, calibration: Path
) -> None:
    table = similarity(collected)
    assert list(table) == [
        *("sample_id", "domain", "task", "source", "n_tokens", "n_vision_tokens"),
        *("first", "span", "cosine", "cosine_vision", "cosine_text", "cosine_last"),
    ]
    assert len(table) == ROWS * (6 + 5 + 4)
    row = list(iterate(calibration))[4]
    measured = measure_batch(dense, batch_of(processor, row), Collect(max_span=3))
    table = table[table["sample_id"] == row["sample_id"]]
    assert table[["first", "span"]].to_numpy().tolist() == measured["spans"].tolist()
    found = table[["cosine", "cosine_vision", "cosine_text", "cosine_last"]].to_numpy()
    np.testing.assert_allclose(found, measured["cosines"][0], atol=1e-5)


def test_a_row_without_images_has_no_vision_cosine(collected: Path) -> None:
    for row in pq.read_table(collected / "similarity").to_pylist():
        assert (row["cosine_vision"] is None) == (row["n_vision_tokens"] == 0)


@pytest.mark.parametrize(
    ("pooled", "kept"), [("all", ROWS + 8), ("probes", 8), ("none", 0)], ids=str
)
def test_pooled_states_are_kept_as_requested(
    run: Run,
    dense: Any,
    processor: Any,
    calibration: Path,
    probes: Path,
    tmp_path: Path,
    pooled: str,
    kept: int,
) -> None:
    out = run(tmp_path, calibration, probes, pooled=pooled)
    assert ("pooled/part-00000.parquet" in written(out)) == bool(kept)
    if not kept:
        return
    stored = pq.read_table(out / "pooled")
    for side in ("input", "output"):
        assert stored.schema.field(side).type == pa.list_(pa.float16(), WIDTH)
    table = stored.to_pandas()
    assert len(table[["sample_id", "layer"]].drop_duplicates()) == len(table) == kept * LAYERS
    assert pooled == "all" or "native" not in set(table["domain"])
    row = list(iterate(probes))[5]
    measured = measure_batch(dense, batch_of(processor, row), Collect(max_span=3))
    table = table[table["sample_id"] == row["sample_id"]]
    assert table["layer"].tolist() == list(range(LAYERS))
    for side, name in enumerate(("input", "output")):
        expected = measured["pooled"][0, side]
        np.testing.assert_allclose(np.stack(table[name]), expected, rtol=2e-3, atol=2e-3)


def test_a_pooled_state_that_float16_cannot_hold_names_the_sample() -> None:
    states = np.zeros((2, 2, 1, 3))
    states[1, 0, 0, 2] = -7e4
    with pytest.raises(ContractError, match=r"sample abc: .* set collect\.pooled to none"):
        collecting.halved(states, [{"sample_id": "fine"}, {"sample_id": "abc"}])


@pytest.mark.parametrize("kind", ["similarity", "pooled"])
def test_files_say_how_they_were_measured(
    collected: Path, kind: str, provenance: dict[str, str]
) -> None:
    metadata = pq.read_schema(next((collected / kind).glob("*"))).metadata
    texts = {key.decode(): value.decode() for key, value in metadata.items()}
    assert texts.items() >= (provenance | {"mode": "residual", "dtype": "float32"}).items()
    assert texts["code_version"]


def test_neither_batches_nor_the_order_of_samples_matter_to_the_measurements(
    run: Run, calibration: Path, collected: Path, tmp_path: Path
) -> None:
    write_rows(iter(list(iterate(calibration))[::-1]), tmp_path / "rows")
    keys, columns = ["sample_id", "span", "first"], ["cosine", "cosine_last"]
    found, expected = (
        similarity(out).sort_values(keys)
        for out in (run(tmp_path, tmp_path / "rows", batch_tokens=1), collected)
    )
    assert found["sample_id"].tolist() == expected["sample_id"].tolist()
    np.testing.assert_allclose(found[columns], expected[columns], atol=1e-5)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve rows in three windows, of two or more batches each at 70 tokens a batch."""
    monkeypatch.setattr(windows, "ROWS", 4)


@pytest.mark.usefixtures("small_windows")
def test_an_interrupted_run_loses_at_most_a_batch_and_writes_the_same_bytes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = interrupt(monkeypatch, collecting, name="measure_batch")
    expected = written(run(tmp_path / "uninterrupted", batch_tokens=70))
    total = len(batches)
    assert total > 6
    for call in range(1, total + 1):
        batches.clear()
        with monkeypatch.context() as patch:
            interrupt(patch, collecting, call, name="measure_batch")
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path / "broken", batch_tokens=70)
        assert not (tmp_path / "broken/out").exists()
        assert written(run(tmp_path / "broken", batch_tokens=70)) == expected
        assert len(batches) == total  # none twice
        remove(tmp_path / "broken")


@pytest.mark.usefixtures("small_windows")
def test_a_half_written_batch_is_measured_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = written(run(tmp_path / "uninterrupted"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, collecting, 2, name="measure_batch")
        run(tmp_path)
    batch = next((tmp_path / "scratch").glob("*/batch-*"))
    batch.rename(batch.with_name(f".{batch.name}.partial"))
    assert written(run(tmp_path)) == expected


@pytest.mark.usefixtures("small_windows")
def test_a_window_that_another_process_kept_elsewhere_is_missed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "world_size", lambda: 2)  # and no second one is here
    with pytest.raises(ContractError, match=r"window-000001: not all batches .* shared disk"):
        run(tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("small_windows")
def test_parts_hold_the_same_rows_however_large_they_are(
    run: Run, collected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "PART_BYTES", 1)
    out = run(tmp_path)
    for kind in ("similarity", "pooled"):
        assert sorted(path.name for path in (out / kind).iterdir()) == [
            f"part-{number:05d}.parquet" for number in range(3)
        ]
        ids = [pq.read_table(folder / kind)["sample_id"].to_pylist() for folder in (out, collected)]
        assert ids[0] == ids[1]


def test_a_finished_run_replaces_an_earlier_output_and_leaves_no_scratch(
    run: Run, tmp_path: Path
) -> None:
    with whole(tmp_path / "out") as partial:
        (partial / "similarity").mkdir(parents=True)
        (partial / "similarity/part-00009.parquet").write_text("stale")
    names = written(run(tmp_path)).keys()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert names == {
        "similarity/part-00000.parquet",
        "pooled/part-00000.parquet",
        "left_out.parquet",
    }


def test_the_sample_and_the_layer_that_are_not_finite_are_named(
    dense_dir: Path, processor: Any, run: Run, calibration: Path, tmp_path: Path
) -> None:
    model = open_model(dense_dir, dtype="float32")
    seven = processor.tokenizer.convert_tokens_to_ids("7")
    model.get_input_embeddings().weight.data[seven] = math.inf
    rows = iterate(calibration)
    sample = next(row["sample_id"] for row in rows if "7" in row["texts"][0]["user"])
    message = f"sample {sample}: the input of layer 0 is not finite in float32; the weights"
    with pytest.raises(ContractError, match=message):
        run(tmp_path, model=model)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def damaged(calibration: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The calibration rows, the images of two of them broken."""
    folder = tmp_path_factory.mktemp("damaged") / "rows"
    rows = list(iterate(calibration))
    for row in [row for row in rows if row["images"]][:2]:
        row["images"] = [{"bytes": b"no image", "path": None}]
    write_rows(iter(rows), folder)
    return folder


def bad_ids(damaged: Path) -> list[str]:
    return [
        row["sample_id"]
        for row in iterate(damaged)
        if row["images"] and row["images"][0]["bytes"] == b"no image"
    ]


def test_samples_that_cannot_be_read_are_skipped_and_listed(
    run: Run, damaged: Path, collected: Path, tmp_path: Path
) -> None:
    out = run(tmp_path, damaged)
    table = pq.read_table(out / "left_out.parquet")
    assert table.schema.remove_metadata() == tables.LEFT_OUT
    reason = "UnidentifiedImageError: cannot identify image file <_io.BytesIO object>"
    assert table.to_pylist() == [
        {"sample_id": sample, "source": "made_up", "reason": reason} for sample in bad_ids(damaged)
    ]
    found, expected = similarity(out), similarity(collected)
    expected = expected[~expected["sample_id"].isin(bad_ids(damaged))]
    assert found["sample_id"].tolist() == expected["sample_id"].tolist()
    np.testing.assert_allclose(found["cosine"], expected["cosine"], atol=1e-5)


def test_measured_and_skipped_samples_are_counted(
    dense: Any, processor: Any, damaged: Path, tmp_path: Path
) -> None:
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    counts = collect(
        dense, processor, [damaged], out, params=Collect(), scratch=scratch, provenance={}
    )
    assert counts == Collected(samples=ROWS - 2, skipped=2)


def test_nothing_skipped_is_an_empty_table(collected: Path) -> None:
    table = pq.read_table(collected / "left_out.parquet")
    assert table.num_rows == 0
    assert table.schema.remove_metadata() == tables.LEFT_OUT


@pytest.mark.usefixtures("small_windows")
def test_one_bad_sample_too_many_stops_the_run_in_one_line_until_the_bound_is_raised(
    run: Run, damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = written(run(tmp_path / "uninterrupted", damaged))
    message = rf"^2 samples .* collect\.max_bad = 1; the first is {bad_ids(damaged)[0]} of .*\Z"
    with pytest.raises(InputError, match=message):
        run(tmp_path, damaged, max_bad=1)
    assert not (tmp_path / "out").exists()
    batches = interrupt(monkeypatch, collecting, name="measure_batch")
    with pytest.raises(InputError):  # at once
        run(tmp_path, damaged, max_bad=1)
    assert not batches
    assert written(run(tmp_path, damaged, max_bad=2)) == expected


@pytest.mark.parametrize(
    ("max_bad", "message"),
    [(11, r"12 samples .* of made_up: .* max_length = 8;"), (12, r"none of 12 .* max_length = 8")],
)
def test_a_set_without_a_short_prompt_is_refused(
    run: Run, tmp_path: Path, max_bad: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(tmp_path, max_length=8, max_bad=max_bad)
    assert not (tmp_path / "out").exists()
