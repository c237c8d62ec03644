"""`collect`: what it writes, how it goes on, what stops it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import models
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_rows import Draw

from interlace.data.probes import ProbeTask, probe
from interlace.errors import ContractError, InputError
from interlace.measurements import collect as hidden_states
from interlace.measurements import tables as similarity_tables
from interlace.measurements import windows
from interlace.measurements.collect import collect
from interlace.measurements.cosines import measure_batch
from interlace.model.chat import Inputs, collate, encode_prompt
from interlace.model.decoder import decoder_layers
from interlace.model.open import open_model
from interlace.outputs import remove, whole
from interlace.params.measuring import Collect
from interlace.samples.rows import iterate, write_rows

LAYERS, WIDTH = 6, 32
ABOUT = {"model": "org/name", "revision": "abc", "n_layers": "6", "deepstack_layers": "3"}


def batch_of(processor: Any, *rows: dict[str, Any]) -> Inputs:
    return collate([encode_prompt(processor, row) for row in rows], pad_token_id=0)


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibration")
    rows = models.rows(10)
    rows[7]["texts"][0]["user"] = "What number is 7"  # the only prompt with this digit
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    Draw(folder)(folder / "rows.parquet", calibration_fraction=1.0)
    return folder / "calibration"


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


def run_collect(
    model: Any, processor: Any, rows: Path | list[Path], folder: Path, **params: Any
) -> dict[str, bytes]:
    """Collects into `folder`; returns the written bytes by name."""
    collect(
        model,
        processor,
        rows if isinstance(rows, list) else [rows],
        folder / "out",
        params=Collect(**({"batch_tokens": 256, "max_span": 3, "pooled": "all"} | params)),
        scratch=folder / "scratch",
        provenance=ABOUT,
    )
    files = sorted(path for path in (folder / "out").rglob("*") if path.is_file())
    return {path.relative_to(folder / "out").as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def collected(
    dense: Any, processor: Any, calibration: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("collected")
    run_collect(dense, processor, calibration, folder)
    return folder / "out"


def test_a_missing_length_measures_every_span(
    dense: Any, processor: Any, calibration: Path, tmp_path: Path
) -> None:
    run_collect(dense, processor, calibration, tmp_path, max_span=None)
    table = pq.read_table(tmp_path / "out/similarity")
    assert table.num_rows == 10 * LAYERS * (LAYERS + 1) // 2


def test_calibration_rows_and_probes_are_measured_in_one_go(
    dense: Any, processor: Any, calibration: Path, probes: Path, collected: Path, tmp_path: Path
) -> None:
    run_collect(dense, processor, [calibration, probes], tmp_path)
    columns = ["sample_id", "domain", "task"]
    asked = [*iterate(calibration), *iterate(probes)]
    table = pq.read_table(tmp_path / "out/similarity").to_pandas()
    found = table[columns].drop_duplicates().to_numpy().tolist()
    assert found == [[row[name] for name in columns] for row in asked]
    native = table[table["domain"] == "native"]
    alone = pq.read_table(collected / "similarity").to_pandas()
    np.testing.assert_allclose(native["cosine"], alone["cosine"], atol=1e-5)


def test_probes_measure_the_same_whatever_the_batch(
    dense: Any, processor: Any, calibration: Path, probes: Path, tmp_path: Path
) -> None:
    read = []
    for name, tokens in (("one", 1), ("many", 4096)):
        run_collect(dense, processor, [calibration, probes], tmp_path / name, batch_tokens=tokens)
        table = pq.read_table(tmp_path / name / "out/similarity").to_pandas()
        read.append(table[table["domain"] != "native"][["cosine", "cosine_last"]].to_numpy())
    assert len(read[0]) == 8 * (6 + 5 + 4)
    np.testing.assert_allclose(read[0], read[1], atol=1e-5)


def test_without_rows_there_is_nothing_to_measure(
    dense: Any, processor: Any, tmp_path: Path
) -> None:
    write_rows(iter(()), tmp_path / "empty")
    with pytest.raises(InputError, match=r"empty: no rows to measure; run `dvc repro sample`"):
        run_collect(dense, processor, tmp_path / "empty", tmp_path)


def test_similarity_has_the_contract_s_columns(collected: Path) -> None:
    table = pq.read_table(collected / "similarity")
    assert table.column_names == [
        *("sample_id", "domain", "task", "source", "n_tokens", "n_vision_tokens"),
        *("first", "span", "cosine", "cosine_vision", "cosine_text", "cosine_last"),
    ]
    assert table.num_rows == 10 * (6 + 5 + 4)


def test_samples_keep_their_order(collected: Path, calibration: Path) -> None:
    asked = pq.read_table(calibration, columns=["sample_id"])["sample_id"].to_pylist()
    found = pq.read_table(collected / "similarity")["sample_id"].to_pylist()
    assert list(dict.fromkeys(found)) == asked


def test_similarity_holds_what_was_measured(
    collected: Path, dense: Any, processor: Any, calibration: Path
) -> None:
    row = pq.read_table(calibration).to_pylist()[4]
    measured = measure_batch(dense, batch_of(processor, row), Collect(max_span=3))
    table = pq.read_table(collected / "similarity").to_pandas()
    mine = table[table["sample_id"] == row["sample_id"]]
    assert mine[["first", "span"]].to_numpy().tolist() == measured["spans"].tolist()
    found = mine[["cosine", "cosine_vision", "cosine_text", "cosine_last"]].to_numpy()
    np.testing.assert_allclose(found, measured["cosines"][0], atol=1e-5)


def test_a_row_without_images_has_no_vision_cosine(collected: Path) -> None:
    table = pq.read_table(collected / "similarity")
    for row in table.to_pylist():
        assert (row["cosine_vision"] is None) == (row["n_vision_tokens"] == 0)


def test_pooled_has_one_row_per_sample_and_layer(collected: Path) -> None:
    table = pq.read_table(collected / "pooled")
    keys = list(zip(*table.select(["sample_id", "layer"]).to_pydict().values(), strict=True))
    assert len(set(keys)) == len(keys) == 10 * LAYERS
    for side in ("input", "output"):
        assert table.schema.field(side).type == pa.list_(pa.float16(), WIDTH)


@pytest.mark.parametrize(
    ("pooled", "kept"), [("all", 10 + 8), ("probes", 8), ("none", 0)], ids=["all", "probes", "none"]
)
def test_pooled_states_are_kept_as_asked(
    dense: Any,
    processor: Any,
    calibration: Path,
    probes: Path,
    tmp_path: Path,
    pooled: str,
    kept: int,
) -> None:
    written = run_collect(dense, processor, [calibration, probes], tmp_path, pooled=pooled)
    assert ("pooled/part-00000.parquet" in written) == bool(kept)
    if kept:
        table = pq.read_table(tmp_path / "out/pooled").to_pandas()
        assert len(table[["sample_id", "layer"]].drop_duplicates()) == len(table) == kept * LAYERS
        assert pooled == "all" or "native" not in set(table["domain"])


def test_kept_states_are_those_of_their_sample(
    dense: Any, processor: Any, calibration: Path, probes: Path, tmp_path: Path
) -> None:
    run_collect(dense, processor, [calibration, probes], tmp_path, pooled="probes")
    row = list(iterate(probes))[5]
    expected = measure_batch(dense, batch_of(processor, row), Collect(max_span=3))["pooled"][0]
    table = pq.read_table(tmp_path / "out/pooled").to_pandas()
    mine = table[table["sample_id"] == row["sample_id"]]
    assert mine["layer"].tolist() == list(range(LAYERS))
    for side, name in enumerate(("input", "output")):
        np.testing.assert_allclose(np.stack(mine[name]), expected[side], rtol=2e-3, atol=2e-3)


def test_a_pooled_state_that_float16_cannot_hold_names_the_sample() -> None:
    states = np.zeros((2, 2, 1, 3))
    states[1, 0, 0, 2] = -7e4
    with pytest.raises(ContractError, match=r"sample abc: .* set collect\.pooled to none"):
        hidden_states.halved(states, [{"sample_id": "fine"}, {"sample_id": "abc"}])


@pytest.mark.parametrize("kind", ["similarity", "pooled"])
def test_files_say_how_they_were_measured(collected: Path, kind: str) -> None:
    metadata = pq.read_schema(next((collected / kind).glob("*"))).metadata
    said = {key.decode(): value.decode() for key, value in metadata.items()}
    assert said.items() >= (ABOUT | {"mode": "residual", "dtype": "float32"}).items()
    assert said["code_version"]


def test_batch_size_does_not_matter_to_the_measurements(
    dense: Any, processor: Any, calibration: Path, collected: Path, tmp_path: Path
) -> None:
    run_collect(dense, processor, calibration, tmp_path, batch_tokens=1)
    one, many = (
        pq.read_table(place / "similarity")["cosine"].to_numpy()
        for place in (tmp_path / "out", collected)
    )
    np.testing.assert_allclose(one, many, atol=1e-5)


def test_the_order_of_samples_does_not_matter_to_the_measurements(
    dense: Any, processor: Any, calibration: Path, collected: Path, tmp_path: Path
) -> None:
    write_rows(iter(list(iterate(calibration))[::-1]), tmp_path / "rows")
    run_collect(dense, processor, tmp_path / "rows", tmp_path)
    keys = ["sample_id", "span", "first"]
    one, other = (
        pq.read_table(place / "similarity").to_pandas().sort_values(keys)
        for place in (tmp_path / "out", collected)
    )
    assert one["sample_id"].tolist() == other["sample_id"].tolist()
    np.testing.assert_allclose(one["cosine"], other["cosine"], atol=1e-5)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten rows in three windows, of two or more batches each at 70 tokens a batch."""
    monkeypatch.setattr(windows, "ROWS", 4)


class Interrupts:
    """Counts the batches that are measured, and interrupts before one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.measured, self.stop_at, self._measure = 0, math.inf, measure_batch
        monkeypatch.setattr(hidden_states, "measure_batch", self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.measured == self.stop_at:
            raise KeyboardInterrupt
        self.measured += 1
        return self._measure(*args, **kwargs)


@pytest.mark.usefixtures("small_windows")
def test_an_interrupted_run_loses_at_most_a_batch_and_writes_the_same_bytes(
    dense: Any, processor: Any, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = Interrupts(monkeypatch)
    expected = run_collect(dense, processor, calibration, tmp_path / "whole", batch_tokens=70)
    total = batches.measured
    assert total > 6
    for stop_at in range(total):
        batches.measured, batches.stop_at = 0, stop_at
        with pytest.raises(KeyboardInterrupt):
            run_collect(dense, processor, calibration, tmp_path / "broken", batch_tokens=70)
        assert not (tmp_path / "broken/out").exists()
        batches.stop_at = math.inf
        found = run_collect(dense, processor, calibration, tmp_path / "broken", batch_tokens=70)
        assert found == expected
        assert batches.measured == total  # none twice
        remove(tmp_path / "broken")


@pytest.mark.usefixtures("small_windows")
def test_a_half_written_batch_is_measured_again(
    dense: Any, processor: Any, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run_collect(dense, processor, calibration, tmp_path / "whole")
    batches = Interrupts(monkeypatch)
    batches.stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        run_collect(dense, processor, calibration, tmp_path)
    done = next((tmp_path / "scratch").glob("*/batch-*"))
    done.rename(done.with_name(f".{done.name}.partial"))
    batches.stop_at = math.inf
    assert run_collect(dense, processor, calibration, tmp_path) == expected


@pytest.mark.usefixtures("small_windows")
def test_a_window_that_another_process_kept_elsewhere_is_missed(
    dense: Any, processor: Any, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hidden_states, "world_size", lambda: 2)  # and no second one is here
    with pytest.raises(
        ContractError, match=r"window-000001: not all batches are measured.* shared disk"
    ):
        run_collect(dense, processor, calibration, tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("small_windows")
def test_parts_hold_the_same_rows_however_large_they_are(
    dense: Any,
    processor: Any,
    calibration: Path,
    collected: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(similarity_tables, "PART_BYTES", 1)
    names = run_collect(dense, processor, calibration, tmp_path)
    assert [name for name in names if name.startswith("similarity")] == [
        f"similarity/part-{number:05d}.parquet" for number in range(3)
    ]
    for kind in ("similarity", "pooled"):
        many, one = (
            pq.read_table(place / kind).to_pandas() for place in (tmp_path / "out", collected)
        )
        assert many["sample_id"].tolist() == one["sample_id"].tolist()


def test_a_finished_run_leaves_no_scratch(
    dense: Any, processor: Any, calibration: Path, tmp_path: Path
) -> None:
    run_collect(dense, processor, calibration, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "similarity",
        "pooled",
        "left_out.parquet",
    }


def test_an_earlier_output_is_replaced_not_mixed(
    dense: Any, processor: Any, calibration: Path, tmp_path: Path
) -> None:
    with whole(tmp_path / "out") as partial:
        (partial / "similarity").mkdir(parents=True)
        (partial / "similarity/part-00009.parquet").write_text("stale")
    written = run_collect(dense, processor, calibration, tmp_path)
    assert "similarity/part-00009.parquet" not in written


def test_a_state_that_is_not_finite_stops_the_run_and_is_named(
    dense_dir: Path, processor: Any, calibration: Path, tmp_path: Path
) -> None:
    model = open_model(dense_dir, dtype="float32")
    decoder_layers(model)[4].mlp.down_proj.weight.data[3] = math.nan
    ids = "|".join(pq.read_table(calibration)["sample_id"].to_pylist())
    said = rf"sample ({ids}): the output of layer 4 is not finite in float32; the weights"
    with pytest.raises(ContractError, match=said):
        run_collect(model, processor, calibration, tmp_path)
    assert not (tmp_path / "out").exists()


def test_the_sample_whose_state_is_not_finite_is_named(
    dense_dir: Path, processor: Any, calibration: Path, tmp_path: Path
) -> None:
    model = open_model(dense_dir, dtype="float32")
    seven = processor.tokenizer.convert_tokens_to_ids("7")
    model.get_input_embeddings().weight.data[seven] = math.inf
    rows = pq.read_table(calibration).to_pylist()
    bad = next(row["sample_id"] for row in rows if "7" in row["texts"][0]["user"])
    with pytest.raises(ContractError, match=f"sample {bad}: the input of layer 0 is not finite"):
        run_collect(model, processor, calibration, tmp_path)


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


def test_samples_that_cannot_be_read_are_left_out_and_listed(
    dense: Any, processor: Any, damaged: Path, collected: Path, tmp_path: Path
) -> None:
    run_collect(dense, processor, damaged, tmp_path)
    table = pq.read_table(tmp_path / "out/left_out.parquet")
    assert table.schema.remove_metadata() == similarity_tables.LEFT_OUT
    assert table["sample_id"].to_pylist() == bad_ids(damaged)
    assert set(table["source"].to_pylist()) == {"made_up"}
    reason = "UnidentifiedImageError: cannot identify image file <_io.BytesIO object>"
    assert set(table["reason"].to_pylist()) == {reason}
    found = pq.read_table(tmp_path / "out/similarity").to_pandas()
    others = pq.read_table(collected / "similarity").to_pandas()
    others = others[~others["sample_id"].isin(bad_ids(damaged))]
    assert found["sample_id"].tolist() == others["sample_id"].tolist()
    np.testing.assert_allclose(found["cosine"], others["cosine"], atol=1e-5)


def test_what_was_counted_is_returned(
    dense: Any, processor: Any, damaged: Path, tmp_path: Path
) -> None:
    found = collect(
        dense,
        processor,
        [damaged],
        tmp_path / "out",
        params=Collect(),
        scratch=tmp_path / "scratch",
        provenance=ABOUT,
    )
    assert found == hidden_states.Collected(samples=8, skipped=2)


def test_nothing_left_out_is_an_empty_table(collected: Path) -> None:
    table = pq.read_table(collected / "left_out.parquet")
    assert table.num_rows == 0
    assert table.schema.remove_metadata() == similarity_tables.LEFT_OUT


@pytest.mark.usefixtures("small_windows")
def test_one_bad_sample_too_many_stops_the_run_in_one_line(
    dense: Any, processor: Any, damaged: Path, tmp_path: Path
) -> None:
    first = bad_ids(damaged)[0]
    said = rf"^2 samples cannot be read, more than collect\.max_bad = 1; the first is {first} of"
    with pytest.raises(InputError, match=said) as caught:
        run_collect(dense, processor, damaged, tmp_path, max_bad=1)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("small_windows")
def test_after_a_higher_bound_the_run_goes_on(
    dense: Any, processor: Any, damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run_collect(dense, processor, damaged, tmp_path / "whole")
    with pytest.raises(InputError):
        run_collect(dense, processor, damaged, tmp_path, max_bad=0)
    batches = Interrupts(monkeypatch)
    with pytest.raises(InputError):  # at once
        run_collect(dense, processor, damaged, tmp_path, max_bad=0)
    assert batches.measured == 0
    assert run_collect(dense, processor, damaged, tmp_path, max_bad=2) == expected


def test_a_prompt_that_is_too_long_is_left_out(
    dense: Any, processor: Any, calibration: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"10 samples .* of made_up: .* max_length = 8;"):
        run_collect(dense, processor, calibration, tmp_path, max_length=8, max_bad=9)


def test_a_set_that_cannot_be_read_at_all_is_refused(
    dense: Any, processor: Any, calibration: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"none of 10 samples can be read: .* max_length = 8"):
        run_collect(dense, processor, calibration, tmp_path, max_length=8)
    assert not (tmp_path / "out").exists()
