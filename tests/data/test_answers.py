"""The dense model's own answers: as the model gives them, however they are batched or resumed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from drawn_rows import Draw

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.data.answerers import DenseModel, open_answerer
from interlace.data.answers import OwnAnswer, TurnPrompt, answer_rows
from interlace.data.cleaning import freed
from interlace.errors import InputError
from interlace.model.images import open_image
from interlace.params.answers import AnswersParams, OwnAnswers, RowBounds
from interlace.samples.own_answers import (
    OWN_SCHEMA,
    AnswerSheet,
    read_answer_sheet,
    training_set,
    write_labels,
)
from interlace.samples.rows import SCHEMA, iterate

BOUNDS = RowBounds(min_pixels=None, max_pixels=None, max_length=512)
SAMPLED = {"temperature": 1.0}


def drawn(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as `sample` writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    Draw(folder / "data")(folder / "rows.parquet")
    return folder / "data/train"


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve rows with up to two images and two turns."""
    return drawn(tmp_path_factory.mktemp("train"), models.rows(12))


@pytest.fixture(scope="module")
def ending_dir(dense_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, which ends an answer at any of many tokens: about each sixth."""
    folder = tmp_path_factory.mktemp("ending") / "model"
    shutil.copytree(dense_dir, folder)
    file = folder / "generation_config.json"
    ends = {"eos_token_id": list(range(1, 300, 6))}
    file.write_text(json.dumps(json.loads(file.read_text()) | ends))
    return folder


def params(**changes: Any) -> OwnAnswers:
    return OwnAnswers(**{"source": "dense", "max_new_tokens": 6, "batch_tokens": 300} | changes)


def write(
    model: Path, train: Path, out: Path, seed: int = 0, **changes: Any
) -> list[dict[str, Any]]:
    """Answer rows as the stage does, with this process alone; returns the rows."""
    options = params(**changes)
    chosen = AnswersParams(dtype="float32", seed=seed, answers=options)
    answerer = open_answerer(Checkpoint(model), chosen, BOUNDS)
    answer_rows(answerer, train, out, params=options, scratch=out.with_suffix(".scratch"))
    return list(iterate(out / "rows"))


def texts(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    return [[turn["assistant"] for turn in row["texts"]] for row in rows]


class Scripted:
    """Answers by a function of the user's last turn, and notes what it was shown."""

    rows, name = 4, None

    def __init__(self, reply: Any) -> None:
        self.reply, self.prompts = reply, []

    def answer(self, prompts: Sequence[TurnPrompt]) -> list[OwnAnswer | str]:
        self.prompts += prompts
        return [self.reply(prompt) for prompt in prompts]


def scripted(train: Path, out: Path, reply: Any, **changes: Any) -> AnswerSheet:
    sheet = answer_rows(
        Scripted(reply), train, out, params=params(**changes), scratch=out.with_suffix(".scratch")
    )
    assert sheet and sheet == read_answer_sheet(out)
    return sheet


def test_greedy_answers_are_those_of_generate_one_by_one(
    ending_dir: Path, processor: Any, train: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(ending_dir).eval()
    ends = set(model.generation_config.eos_token_id)
    written = {
        row["sample_id"]: row for row in write(ending_dir, train, tmp_path / "a", max_empty=1)
    }
    for original in iterate(train):
        texts, messages, cut = [], [], False
        parts: list[Any] = [{"type": "image"} for _ in original["images"]]
        pictures = [open_image(image) for image in original["images"]] or None
        for turn in original["texts"]:
            parts.append({"type": "text", "text": turn["user"]})
            messages.append({"role": "user", "content": parts})
            text = processor.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
            inputs = processor(text=[text], images=pictures, return_tensors="pt")
            with torch.inference_mode():
                tokens = model.generate(**inputs, max_new_tokens=6, do_sample=False)
            ids = tokens[0, inputs["input_ids"].shape[1] :].tolist()
            cut = ids[-1] not in ends
            answer = freed(processor.tokenizer.decode(ids[: len(ids) - (not cut)], True))
            if not answer.strip():
                break
            texts.append({"user": turn["user"], "assistant": answer})
            parts = [{"type": "text", "text": answer}]
            messages.append({"role": "assistant", "content": parts})
            parts = []
            if cut:
                break
        row = written.pop(original["sample_id"], {"texts": [], "cut": cut})
        assert row["texts"] == texts
        assert row["cut"] == (cut and bool(texts))
    assert not written


def test_the_rows_of_that_model_are_of_all_kinds(
    ending_dir: Path, train: Path, tmp_path: Path
) -> None:
    written = write(ending_dir, train, tmp_path / "answers", max_empty=1)
    kinds = {(row["cut"], len(row["texts"]), bool(row["images"])) for row in written}
    assert {cut for cut, _, _ in kinds} == {False, True}
    assert {turns for _, turns, _ in kinds} == {1, 2}
    assert {images for _, _, images in kinds} == {False, True}


def test_rows_keep_their_order_ids_prompts_and_images(
    dense_dir: Path, train: Path, tmp_path: Path
) -> None:
    written, originals = write(dense_dir, train, tmp_path / "answers"), list(iterate(train))
    (file,) = (tmp_path / "answers/rows").iterdir()
    assert pq.read_schema(file).equals(OWN_SCHEMA)
    assert OWN_SCHEMA.names == [*SCHEMA.names, "cut"]
    for row, original in zip(written, originals, strict=True):
        for name in ("sample_id", "source", "domain", "task", "images"):
            assert row[name] == original[name]
        assert row["cut"] and len(row["texts"]) == 1  # this model never ends
        assert row["texts"][0]["user"] == original["texts"][0]["user"]


@pytest.mark.parametrize("changes", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_batches_and_windows_do_not_change_answers(
    changes: dict[str, Any],
    ending_dir: Path,
    train: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes = changes | {"max_empty": 1}
    expected = write(ending_dir, train, tmp_path / "one", batch_tokens=1, **changes)
    assert write(ending_dir, train, tmp_path / "all", batch_tokens=10**6, **changes) == expected
    monkeypatch.setattr(DenseModel, "rows", 5)
    assert write(ending_dir, train, tmp_path / "windows", **changes) == expected


def test_sampled_answers_depend_on_the_seed_and_the_temperature(
    dense_dir: Path, train: Path, tmp_path: Path
) -> None:
    greedy = texts(write(dense_dir, train, tmp_path / "greedy"))
    sampled = texts(write(dense_dir, train, tmp_path / "sampled", **SAMPLED))
    again = texts(write(dense_dir, train, tmp_path / "again", **SAMPLED))
    other = texts(write(dense_dir, train, tmp_path / "other", seed=1, **SAMPLED))
    cold = texts(write(dense_dir, train, tmp_path / "cold", temperature=1e-4))
    assert sampled == again and cold == greedy
    assert greedy != sampled != other


def test_each_turn_is_answered_after_the_models_own_earlier_answers(tmp_path: Path) -> None:
    train = drawn(tmp_path, [models.row(0, images=0, turns=3)])
    answerer = Scripted(lambda prompt: OwnAnswer(f"answer {prompt.turn}", cut=False))
    answer_rows(
        answerer, train, tmp_path / "answers", params=params(), scratch=tmp_path / "scratch"
    )
    shown = [texts([prompt.row])[0] for prompt in answerer.prompts]
    assert shown == [[""], ["answer 0", ""], ["answer 0", "answer 1", ""]]
    assert texts(list(iterate(tmp_path / "answers/rows"))) == [["answer 0", "answer 1", "answer 2"]]


def test_cut_empty_and_missing_answers_are_counted(tmp_path: Path) -> None:
    rows = [models.row(seed, images=0, turns=2) for seed in range(6)]
    train = drawn(tmp_path, rows)
    order = {row["sample_id"]: i for i, row in enumerate(iterate(train))}

    def reply(prompt: TurnPrompt) -> OwnAnswer | str:
        number = order[prompt.row["sample_id"]]
        if number == 0:
            return "too long"
        empty = number == 1 or (number == 2 and prompt.turn == 1)
        return OwnAnswer(" " if empty else "fine", cut=number == 3)

    sheet = scripted(train, tmp_path / "answers", reply, max_empty=0.2)
    assert (sheet.prompts, sheet.rows, sheet.answers) == (6, 4, 6)
    assert (sheet.cut, sheet.cut_share, sheet.shortened, sheet.empty) == (1, 0.25, 2, 1)
    assert sheet.skipped == {"too long": 1}
    rows_by_number = {order[row["sample_id"]]: row for row in iterate(tmp_path / "answers/rows")}
    cut = {number: (row["cut"], len(row["texts"])) for number, row in rows_by_number.items()}
    assert cut == {2: (False, 1), 3: (True, 1), 4: (False, 2), 5: (False, 2)}
    line = str(sheet)
    for words in ("4 rows of 6 prompts", "1 rows (25.0%) ran into 6 tokens", "1 skipped: too long"):
        assert words in line


def test_more_empty_answers_than_allowed_stop_the_run_at_once(train: Path, tmp_path: Path) -> None:
    calls: list[TurnPrompt] = []

    def reply(prompt: TurnPrompt) -> OwnAnswer:
        calls.append(prompt)
        return OwnAnswer("", cut=False)

    with pytest.raises(InputError, match=r"answers\.max_empty = 0\.02: .* 4 of 12 .* are empty"):
        scripted(train, tmp_path / "answers", reply)
    assert len(calls) == 4  # one window
    with pytest.raises(InputError, match=r"none of 12 training prompts got an answer"):
        scripted(train, tmp_path / "answers", reply, max_empty=1)
    assert len(calls) == 12
    assert not (tmp_path / "answers").exists()


@pytest.mark.parametrize("rows", [1, 3, 12])
def test_asked_for_fewer_prompts_answers_those_of_lowest_ids_in_their_order(
    train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(Scripted, "rows", rows)
    asked: list[str] = []

    def reply(prompt: TurnPrompt) -> OwnAnswer:
        asked.append(prompt.row["sample_id"])
        return OwnAnswer("fine", cut=False)

    ids = [row["sample_id"] for row in iterate(train)]
    chosen = [i for i in ids if i in sorted(ids)[:5]]
    sheet = scripted(train, tmp_path / "answers", reply, samples=5)
    assert [row["sample_id"] for row in iterate(tmp_path / "answers/rows")] == chosen
    assert {*asked} == {*chosen}
    assert (sheet.prompts, sheet.rows) == (5, 5)


def test_finished_windows_are_kept_and_damaged_ones_answered_again(
    train: Path, tmp_path: Path
) -> None:
    calls: list[TurnPrompt] = []

    def reply(prompt: TurnPrompt) -> OwnAnswer:
        calls.append(prompt)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return OwnAnswer("fine", cut=False)

    with pytest.raises(KeyboardInterrupt):
        scripted(train, tmp_path / "answers", reply)
    (finished,) = (tmp_path / "answers.scratch").glob("*.json")
    scripted(train, tmp_path / "answers", reply)
    assert len(calls) == 8 + 12
    assert not finished.exists()


def test_a_prompt_that_training_would_refuse_is_skipped(
    dense_dir: Path, processor: Any, train: Path
) -> None:
    from interlace.model.open import open_model

    model = open_model(dense_dir, dtype="float32")
    row = next(iterate(train))
    answerer = DenseModel(model, processor, params(), max_length=3, seed=0)
    (reason,) = answerer.answer([TurnPrompt(row, 0)])
    assert reason == "a prompt longer than finetune.max_length = 3 tokens"


def test_training_takes_the_rows_that_the_answers_say(train: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers"
    with pytest.raises(InputError, match=r"answers/answers\.json: no such file"):
        training_set(train, out)
    write_labels(out)
    assert training_set(train, out) == train
    scripted(train, out, lambda prompt: OwnAnswer("fine", cut=False))
    assert training_set(train, out) == out / "rows"
    next((out / "rows").iterdir()).unlink()
    with pytest.raises(InputError, match=r"answers/rows: no rows"):
        training_set(train, out)
