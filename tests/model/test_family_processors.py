"""Each family's own processor through encoding, batches and a tiny model."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import family_models
import family_processor_parts
import family_processors
import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.smolvlm import processing_smolvlm

from interlace.errors import InputError
from interlace.model.chat import (
    IGNORED,
    NEEDING_IMAGES,
    Inputs,
    collate,
    encode_prompt,
    encode_training,
)
from interlace.model.families import vision_token_ids
from interlace.model.open import open_model, open_processor
from interlace.model.rules import FAMILIES

ANSWERS = {0: ["3"], 1: ["1 2", "left"], 2: ["4 5 6"]}  # by the row's number of images
SIZES = [(24, 16), (16, 40), (30, 20)]  # width and height, pixels: other tiles, other patches
# Linear attention is computed in chunks in float32, so that its rounding depends on the padding.
TOLERANCE = {"qwen3_5": 1e-3, "qwen3_5_moe": 1e-3, "qwen3_5_text": 1e-3}
TOLERANCE |= {"minicpm_ocr": 1e-3, "minicpmv4_6": 1e-3, "minicpmv4_7": 1e-3}
TOLERANCE |= {"pp_chart2table": 2e-5}  # by processor
# Families whose processors bound the area of an image.
BOUNDED = (
    "qwen",
    "glm",
    "cosmos",
    "ernie",
    "exaone",
    "hyperclovax",
    "lfm3",
    "paddle",
    "video_llama",
)


def picture(seed: int) -> dict[str, Any]:
    width, height = SIZES[seed % len(SIZES)]
    pixels = np.random.default_rng(seed).integers(1, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def row(images: int) -> dict[str, Any]:
    texts = [{"user": "What number is left ?", "assistant": answer} for answer in ANSWERS[images]]
    return {"images": [picture(images + i) for i in range(images)], "texts": texts}


@dataclass(frozen=True)
class Case:
    """A tiny processor and model, and rows for it: with 0, 1 and 2 images where it takes some."""

    name: str
    processor: Any
    model: Any

    @property
    def images(self) -> list[int]:
        needed = type(self.processor).__name__ in NEEDING_IMAGES
        return [1, 2] if needed else [0, 1, 2]

    @property
    def takes_images(self) -> bool:
        return self.name not in family_models.TEXT

    def row(self, images: int) -> dict[str, Any]:
        """The row of that many images, without them if the family takes none."""
        return row(images) if self.takes_images else row(images) | {"images": []}

    @property
    def pad(self) -> int:
        return int(self.processor.tokenizer.pad_token_id)

    def encoded(self) -> list[Inputs]:
        return [encode_training(self.processor, self.row(images)) for images in self.images]

    def image_tokens(self, example: Inputs) -> int:
        ids = torch.tensor(vision_token_ids(self.model.config))
        return int(torch.isin(example["input_ids"], ids).sum())

    @torch.inference_mode()
    def logits(self, *examples: Inputs) -> torch.Tensor:
        batch = collate(examples, pad_token_id=self.pad)
        return self.model(**{k: v for k, v in batch.items() if k != "labels"}).logits


@pytest.fixture(scope="module", params=family_processors.FAMILIES)
def case(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if not family_models.is_known(request.param):
        pytest.skip("the installed transformers is older than this family")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processing_smolvlm, "num2words", str)  # counts frames of films, not images
        folder = family_processors.save(request.param, tmp_path_factory.mktemp("family"))
        yield Case(request.param, open_processor(folder), open_model(folder, dtype="float32"))


def test_labels_are_the_answers_and_nothing_else(case: Case) -> None:
    for images, example in zip(case.images, case.encoded(), strict=True):
        labelled = example["labels"] != IGNORED
        assert torch.equal(example["labels"][labelled], example["input_ids"][labelled])
        answers = case.processor.tokenizer.decode(example["labels"][labelled])
        assert answers == "".join(f"{answer}<end>\n" for answer in ANSWERS[images])


def test_a_prompt_is_the_beginning_of_the_training_tokens(case: Case) -> None:
    begin = case.processor.tokenizer.convert_tokens_to_ids(family_processor_parts.BEGIN)
    for images, training in zip(case.images, case.encoded(), strict=True):
        encoded = encode_prompt(case.processor, case.row(images))
        prompt = encoded["input_ids"]
        assert torch.equal(prompt, training["input_ids"][: len(prompt)])
        assert (encoded["labels"] == IGNORED).all()
        assert training["labels"][len(prompt)] != IGNORED
        assert (prompt == begin).sum() == bool(family_processors.FAMILIES[case.name].begins)
        assert (case.image_tokens(training) > 0) == (case.takes_images and images > 0)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_padded_batch_gives_what_its_rows_give(case: Case, reverse: bool) -> None:
    examples = sorted(case.encoded(), key=lambda x: len(x["input_ids"]), reverse=reverse)
    assert len(examples[0]["input_ids"]) != len(examples[-1]["input_ids"])
    for logits, example in zip(case.logits(*examples), examples, strict=True):
        (alone,) = case.logits(example)
        assert (logits[: len(alone)] - alone).abs().max() < TOLERANCE.get(case.name, 1e-5)


def test_answers_of_a_batch_padded_left_are_those_of_its_rows(case: Case) -> None:
    prompts = [encode_prompt(case.processor, case.row(images)) for images in case.images]
    for prompt, answer in zip(prompts, generated(case, prompts), strict=True):
        assert torch.equal(generated(case, [prompt])[0], answer)


@torch.inference_mode()
def generated(case: Case, prompts: list[Inputs]) -> torch.Tensor:
    batch = collate(prompts, pad_token_id=case.pad, side="left")
    del batch["labels"]
    special = sorted({case.pad, *case.processor.tokenizer.all_special_ids})
    tokens = case.model.generate(
        **batch, do_sample=False, min_new_tokens=3, max_new_tokens=3, suppress_tokens=special
    )
    return tokens[:, batch["input_ids"].shape[1] :]


with_images = pytest.mark.parametrize(
    "case", [n for n in family_processors.FAMILIES if n not in family_models.TEXT], indirect=True
)


@with_images
def test_the_second_image_matters(case: Case) -> None:
    two = row(2)
    other = two | {"images": [two["images"][0], picture(2 + 3 + 1)]}  # the same size
    one, another = (encode_training(case.processor, each) for each in (two, other))
    assert torch.equal(one["input_ids"], another["input_ids"])
    assert not torch.allclose(case.logits(one)[0, -1], case.logits(another)[0, -1], atol=1e-4)


def test_no_token_sees_the_answer_after_it(case: Case) -> None:
    example = encode_training(case.processor, case.row(1))
    changed = {name: value.clone() for name, value in example.items()}
    changed["input_ids"][-1] = changed["input_ids"][-2]
    before, after = case.logits(example)[0, :-1], case.logits(changed)[0, :-1]
    # Experts multiply their tokens together: other last bits on some processors
    torch.testing.assert_close(before, after, rtol=0, atol=1e-6)


@with_images
def test_a_bound_on_pixels_is_kept_or_refused(case: Case, tmp_path: Path) -> None:
    case.processor.save_pretrained(tmp_path)
    if not case.name.startswith(BOUNDED):
        with pytest.raises(InputError, match="leave min_pixels and max_pixels empty"):
            open_processor(tmp_path, max_pixels=16 * 16)
        return
    bounded = open_processor(tmp_path, min_pixels=8 * 8, max_pixels=16 * 16)
    few, many = (encode_prompt(each, row(1)) for each in (bounded, case.processor))
    assert 0 < case.image_tokens(few) < case.image_tokens(many)


def test_paligemma_s_prompts_have_an_image_and_are_seen_both_ways(tmp_path: Path) -> None:
    processor = open_processor(family_processors.save("paligemma", tmp_path))
    example = encode_training(processor, row(1))
    prompt = len(encode_prompt(processor, row(1))["input_ids"])
    length = len(example["input_ids"])
    assert example["token_type_ids"].tolist() == [0] * prompt + [1] * (length - prompt)
    with pytest.raises(InputError, match="takes no conversation without an image"):
        encode_prompt(processor, row(0))


@pytest.mark.parametrize("family", ["llama", "llava"])
def test_a_processor_without_a_chat_template_is_refused(tmp_path: Path, family: str) -> None:
    family_processors.save(family, tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match=r"no chat template; put a chat_template\.jinja beside it"):
        open_processor(tmp_path)


def test_a_processor_whose_package_is_missing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing_smolvlm, "num2words", str)
    family_processors.save("smolvlm", tmp_path)
    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    with pytest.raises(InputError, match=r"processor cannot be opened: .*num2words"):
        open_processor(tmp_path)


def test_a_text_model_refuses_an_image_and_ignores_bounds_on_images(tmp_path: Path) -> None:
    family_processors.save("llama", tmp_path)
    processor = open_processor(tmp_path, min_pixels=1, max_pixels=2)
    with pytest.raises(InputError, match="takes text alone, and the row has an image"):
        encode_prompt(processor, row(1))


def test_text_inputs_have_no_types_of_tokens(tmp_path: Path) -> None:
    processor = open_processor(family_processors.save("llama", tmp_path))
    processor.tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    inputs = encode_training(processor, row(0))
    assert inputs.keys() == {"input_ids", "attention_mask", "labels"}


def test_every_family_has_a_tiny_processor() -> None:
    configs = [family_models.ALL[name].config for name in family_processors.FAMILIES]
    types = {config["model_type"] for config in configs}
    assert types | set(family_processors.SYNTHETIC) == set(FAMILIES)
