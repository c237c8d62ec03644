"""`collect`: its output, how it resumes, and what stops it."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from interruptions import damage, interrupt

from interlace.data.probes import ProbeTask, probe
from interlace.errors import ContractError, InputError
from interlace.measurements import collect as collect_module
from interlace.measurements import tables
from interlace.measurements.collect import Collected, collect, halved
from interlace.measurements.cosines import measure_batch
from interlace.model.chat import collate, encode_prompt
from interlace.model.open import open_model
from interlace.params.measuring import Collect
from interlace.samples import windows
from interlace.samples.rows import iterate, write_rows
from interlace.system.outputs import remove, whole

ROWS, LAYERS, WIDTH = 12, 6, 32
Run = Callable[..., Path]


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
def damaged(calibration: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The calibration rows, the images of two of them broken."""
    folder = tmp_path_factory.mktemp("damaged") / "rows"
    rows = list(iterate(calibration))
    for row in [row for row in rows if row["images"]][:2]:
        row["images"] = [{"bytes": b"no image", "path": None}]
    write_rows(iter(rows), folder)
    return folder


def damaged_ids(damaged: Path) -> list[str]:
    broken = [{"bytes": b"no image", "path": None}]
    return [row["sample_id"] for row in iterate(damaged) if row["images"] == broken]


@pytest.fixture(scope="module")
def run(dense: Any, processor: Any, calibration: Path, provenance: dict[str, str]) -> Run:
    """A function that collects into a folder; returns the folder of the output."""

    def collected_in(folder: Path, *rows: Path, model: Any = dense, **params: Any) -> Path:
        collect(
            model,
            processor,
            rows or [calibration],
            folder / "out",
            params=Collect(**({"batch_tokens": 256, "max_span": 3, "pooled": "all"} | params)),
            scratch=folder / "scratch",
            provenance=provenance,
        )
        return folder / "out"

    return collected_in


@pytest.fixture(scope="module")
def collected(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("collected"))


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve rows in three windows, of two or more batches each at 70 tokens a batch."""
    monkeypatch.setattr(windows, "ROWS", 4)


def written(out: Path) -> dict[str, bytes]:
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def similarity(out: Path) -> pd.DataFrame:
    return pq.read_table(out / "similarity").to_pandas()


@pytest.mark.parametrize("most", [None, LAYERS + 3])
def test_without_a_longest_span_all_are_measured(run: Run, tmp_path: Path, most: Any) -> None:
    assert len(similarity(run(tmp_path, max_span=most))) == ROWS * LAYERS * (LAYERS + 1) // 2


@pytest.mark.parametrize(("pooled", "states"), [("all", ROWS + 8), ("probes", 8), ("none", 0)])
def test_calibration_rows_and_probes_are_measured_in_order(
    run: Run,
    dense: Any,
    processor: Any,
    calibration: Path,
    probes: Path,
    tmp_path: Path,
    pooled: str,
    states: int,
) -> None:
    rows = [*iterate(calibration), *iterate(probes)]
    out = run(tmp_path, calibration, probes, pooled=pooled)
    table = similarity(out)
    columns = ["sample_id", "domain", "task", "source"]
    order = [[row[name] for name in columns] for row in rows]
    assert table[columns].drop_duplicates().to_numpy().tolist() == order
    cosines = table[["cosine", "cosine_vision", "cosine_text", "cosine_last"]].to_numpy()
    cosines = cosines.reshape(len(rows), 6 + 5 + 4, 4)
    for number in (4, 15):
        batch = collate([encode_prompt(processor, rows[number])], pad_token_id=0)
        expected = measure_batch(dense, batch, Collect(max_span=3))
        np.testing.assert_allclose(cosines[number], expected["cosines"][0], atol=1e-5)
    assert pq.read_schema(out / "similarity/part-00000.parquet").types == (
        [pa.string()] * 4 + [pa.int32()] * 4 + [pa.float32()] * 4
    )
    assert table[["first", "span"]].to_numpy().tolist() == expected["spans"].tolist() * len(rows)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # no scratch is left
    assert ("pooled/part-00000.parquet" in written(out)) == bool(states)
    if not states:
        return
    stored = pq.read_table(out / "pooled")
    for side in ("input", "output"):
        assert stored.schema.field(side).type == pa.list_(pa.float16(), WIDTH)
    frame = stored.to_pandas()
    order = [[row["sample_id"], layer] for row in rows[-states:] for layer in range(LAYERS)]
    assert frame[["sample_id", "layer"]].to_numpy().tolist() == order
    last = frame[frame["sample_id"] == rows[15]["sample_id"]]
    means = [np.stack(last[side]) for side in ("input", "output")]
    np.testing.assert_allclose(means, expected["pooled"][0], rtol=2e-3, atol=2e-3)


def test_probes_in_a_batch_with_other_rows_have_their_own_pooled_states(
    run: Run, calibration: Path, probes: Path, tmp_path: Path
) -> None:
    write_rows(iter([*iterate(calibration), *iterate(probes)]), tmp_path / "rows")
    mixed, separate = (
        pq.read_table(out / "pooled").to_pandas()
        for out in (
            run(tmp_path / "mixed", tmp_path / "rows", pooled="probes"),
            run(tmp_path / "separate", calibration, probes, pooled="probes"),
        )
    )
    assert mixed["sample_id"].tolist() == separate["sample_id"].tolist()
    states = [np.stack(frame["output"]) for frame in (mixed, separate)]
    np.testing.assert_allclose(*states, rtol=2e-3, atol=2e-3)


def test_without_rows_there_is_nothing_to_measure(run: Run, tmp_path: Path) -> None:
    write_rows(iter(()), tmp_path / "empty")
    with pytest.raises(InputError, match=r"empty: no rows to measure"):
        run(tmp_path, tmp_path / "empty")


def test_a_row_without_images_has_no_vision_cosine(collected: Path) -> None:
    for row in pq.read_table(collected / "similarity").to_pylist():
        assert (row["cosine_vision"] is None) == (row["n_vision_tokens"] == 0)


def test_the_tokens_of_greatest_norm_are_measured_in_order(
    run: Run, dense: Any, processor: Any, calibration: Path, collected: Path
) -> None:
    rows = list(iterate(calibration))
    table = pq.read_table(collected / "sinks").to_pandas()
    order = [[row["sample_id"], layer] for row in rows for layer in range(LAYERS)]
    assert table[["sample_id", "layer"]].to_numpy().tolist() == order
    batch = collate([encode_prompt(processor, rows[4])], pad_token_id=0)
    expected = measure_batch(dense, batch, Collect(max_span=3))
    sample = table.iloc[4 * LAYERS : 5 * LAYERS]
    np.testing.assert_allclose(sample[tables.SINKS.names[5:-1]], expected["sinks"][0], rtol=1e-4)
    assert sample["largest_position"].tolist() == expected["largest"][0].tolist()


def test_a_pooled_state_that_float16_cannot_hold_names_the_sample() -> None:
    states = np.zeros((2, 2, 1, 3))
    states[1, 0, 0, 2] = -7e4
    with pytest.raises(ContractError, match=r"sample abc: .* set collect\.pooled to none"):
        halved(states, [{"sample_id": "fine"}, {"sample_id": "abc"}])


@pytest.mark.parametrize("name", ["similarity", "sinks", "pooled", "left_out.parquet"])
def test_files_say_how_they_were_measured(
    collected: Path, name: str, provenance: dict[str, str]
) -> None:
    metadata = pq.read_table(collected / name).schema.metadata
    texts = {key.decode(): value.decode() for key, value in metadata.items()}
    assert texts.items() >= (provenance | {"mode": "residual", "dtype": "float32"}).items()
    assert texts["code_version"]
    assert "cosine_dtype" not in texts


def test_files_in_mode_reference_say_the_type_of_cosines_and_end_before_the_last_layer(
    run: Run, tmp_path: Path
) -> None:
    out = run(tmp_path, mode="reference", pooled="all")
    for name, column in (("similarity", "first"), ("sinks", "layer"), ("pooled", "layer")):
        table = pq.read_table(out / name)
        metadata = table.schema.metadata
        assert (metadata[b"mode"], metadata[b"cosine_dtype"]) == (b"reference", b"float32")
        assert metadata[b"n_layers"] == b"6"
        assert sorted(set(table[column].to_pylist())) == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("small_windows")
def test_an_interrupted_run_loses_at_most_a_batch_and_writes_the_same_bytes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = interrupt(monkeypatch, collect_module, name="measure_batch")
    expected = written(run(tmp_path / "uninterrupted", batch_tokens=70))
    total = len(batches)
    assert total > 6
    for call in range(1, total + 1):
        batches.clear()
        with monkeypatch.context() as patch:
            interrupt(patch, collect_module, call, name="measure_batch")
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path / "broken", batch_tokens=70)
        assert not (tmp_path / "broken/out").exists()
        for batch in list((tmp_path / "broken/scratch").glob("*/batch-*"))[:1]:  # half written
            batch.rename(batch.with_name(f".{batch.name}.partial"))
        assert written(run(tmp_path / "broken", batch_tokens=70)) == expected
        assert len(batches) == total + (call > 1)
        remove(tmp_path / "broken")
    with monkeypatch.context() as patch:
        interrupt(patch, collect_module, 2, name="similarity_table")
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "unwritten", batch_tokens=70)
    batches.clear()
    assert written(run(tmp_path / "unwritten", batch_tokens=70)) == expected
    assert not batches


@pytest.mark.usefixtures("small_windows")
def test_images_opened_ahead_change_no_byte(run: Run, tmp_path: Path) -> None:
    expected = written(run(tmp_path / "in turn", batch_tokens=70, workers=0))
    assert written(run(tmp_path / "ahead", batch_tokens=70, workers=2)) == expected


@pytest.mark.usefixtures("small_windows")
def test_a_sample_whose_worker_is_killed_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = collect_module.encode_rows

    def killed(processor: Any, rows: dict[int, Any], length: int) -> Any:
        if 2 in rows:
            os.kill(os.getpid(), signal.SIGKILL)
        return encode(processor, rows, length)

    monkeypatch.setattr(collect_module, "encode_rows", killed)
    pattern = r"^sample [0-9a-f]{16} of made_up: the process .* SIGKILL.* set measure.workers lower"
    with pytest.raises(InputError, match=pattern):
        run(tmp_path, batch_tokens=70, workers=2)


@pytest.mark.usefixtures("small_windows")
def test_damaged_measurements_are_done_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = written(run(tmp_path / "uninterrupted", batch_tokens=70))
    with monkeypatch.context() as patch:
        interrupt(patch, collect_module, 2, name="similarity_table")
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "damaged", batch_tokens=70)
    damage(tmp_path / "damaged/scratch")
    assert written(run(tmp_path / "damaged", batch_tokens=70)) == expected


@pytest.mark.usefixtures("small_windows")
def test_a_window_that_another_process_kept_elsewhere_is_missed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect_module, "world_size", lambda: 2)  # and no second one is here
    with pytest.raises(ContractError, match=r"window-000001: not all batches .* shared disk"):
        run(tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("small_windows")
def test_parts_hold_the_same_rows_however_large_they_are(
    run: Run, collected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "PART_BYTES", 1)
    with whole(tmp_path / "out") as partial:
        (partial / "similarity").mkdir(parents=True)
        (partial / "similarity/part-00009.parquet").write_text("of an earlier run")
    out = run(tmp_path)
    kinds = "pooled", "similarity", "sinks"
    names = [f"{kind}/part-0000{n}.parquet" for kind in kinds for n in range(3)]
    assert list(written(out)) == ["left_out.parquet", *names]
    for kind in kinds:
        ids = [pq.read_table(folder / kind)["sample_id"].to_pylist() for folder in (out, collected)]
        assert ids[0] == ids[1]


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


def test_samples_that_cannot_be_read_are_skipped_counted_and_listed(
    dense: Any, processor: Any, damaged: Path, collected: Path, tmp_path: Path
) -> None:
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    params = Collect(max_span=3)
    counts = collect(
        dense, processor, [damaged], out, params=params, scratch=scratch, provenance={}
    )
    assert counts == Collected(samples=ROWS - 2, skipped=2)
    reason = "an image is of no known format"
    assert pq.read_table(out / "left_out.parquet").to_pylist() == [
        {"sample_id": sample, "source": "made_up", "reason": reason}
        for sample in damaged_ids(damaged)
    ]
    assert pq.read_schema(out / "left_out.parquet").remove_metadata() == tables.LEFT_OUT
    expected = similarity(collected)
    expected = expected[~expected["sample_id"].isin(damaged_ids(damaged))]
    assert similarity(out)["sample_id"].tolist() == expected["sample_id"].tolist()
    np.testing.assert_allclose(similarity(out)["cosine"], expected["cosine"], atol=1e-5)


@pytest.mark.usefixtures("small_windows")
def test_one_bad_sample_too_many_stops_the_run_in_one_line_until_the_bound_is_raised(
    run: Run, damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = written(run(tmp_path / "uninterrupted", damaged))
    first = damaged_ids(damaged)[0]
    message = rf"^2 samples .* collect\.max_bad = 1; the first is {first} of .*\Z"
    with pytest.raises(InputError, match=message):
        run(tmp_path, damaged, max_bad=1)
    assert not (tmp_path / "out").exists()
    batches = interrupt(monkeypatch, collect_module, name="measure_batch")
    with pytest.raises(InputError):
        run(tmp_path, damaged, max_bad=1)
    assert not batches  # refused at once
    assert written(run(tmp_path, damaged, max_bad=2)) == expected


@pytest.mark.parametrize(
    ("max_bad", "message"),
    [
        (11, r"12 samples .* of made_up: .* max_length = 8; .* raise measure\.max_length for"),
        (12, r"none of 12 .* max_length = 8; .* raise measure\.max_length for"),
    ],
)
def test_a_set_without_a_short_prompt_is_refused(
    run: Run, tmp_path: Path, max_bad: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(tmp_path, max_length=8, max_bad=max_bad)
    assert not (tmp_path / "out").exists()
