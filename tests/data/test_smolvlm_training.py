"""The training and the merge of data/smolvlm, on a tiny decoder."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import adapters
import fitting
import merge
import pytest
import tiny_model
import torch
import train_decoder
import train_tower
from assemble import ADDED, build_model, build_processor
from captions import VOCABULARY, WORDS, caption
from drawing import Handwriting
from drawn_batches import DistortedHandwriting, draw_rows
from fitting import Share
from questions import SOURCES
from safetensors.torch import load_file
from teacher_forcing import answer_logits, backward
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    Idefics3ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
)

from interlace.errors import InputError
from interlace.model.chat import collate, encode_prompt
from interlace.model.families import architecture
from interlace.system.outputs import write_json

ROOT = Path(__file__).parents[2]
PHASE = {
    "steps": 4,
    "batch": 4,
    "micro_batches": 2,
    "peak_lr": 1e-2,
    "weight_decay": 0.01,
    "warmup_share": 0.05,
    "checkpoint_every": 2,
    "held_out_rows": 3,
}
PARAMS = {
    "seed": 0,
    "tower": {"hidden": 16, "intermediate": 16, "layers": 1, "heads": 2},
    "adapters": {"rank": 2, "first_layer": 1},
    "train_tower": PHASE | {"batch": 32, "slower": {"connector": 0.1}},
    "train_lora": PHASE,
    "train_joint": PHASE,
}
ROWS = draw_rows("lora", 0, 12, 0, Handwriting("train", 0), list(SOURCES))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of three layers, whose tokenizer has the words of captions."""
    folder = tmp_path_factory.mktemp("decoder")
    texts = [f" {word}" if word.isalpha() else word for word in VOCABULARY]
    tokenizer = tiny_model.build_tokenizer([*texts, *texts, "user", "assistant"], 500)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=1,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapted(decoder: Path) -> tuple[Any, Any]:
    """The model with adapters that change something, and its processor."""
    model, processor = adapters.build_adapted(decoder, PARAMS)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in fitting.trained(model).values():
            weight.copy_(0.2 * torch.randn_like(weight))
    return model, processor


def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        return answer_logits(model, dict(inputs))[0]


def test_the_decoder_is_the_source_and_new_tokens_are_its_mean(decoder: Path) -> None:
    processor = build_processor(decoder)
    model = build_model(decoder, PARAMS["tower"], processor, 0)
    source = LlamaForCausalLM.from_pretrained(decoder, dtype=torch.float32)
    old, new = source.model.embed_tokens.weight, model.get_input_embeddings().weight
    assert torch.equal(new[: len(old)], old) and len(new) == len(old) + len(ADDED)
    assert torch.allclose(new[len(old) :], old.mean(0).expand(len(ADDED), -1))
    assert model.lm_head.weight is new
    ids = processor.tokenizer("Hi red5", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        ours, theirs = model(input_ids=ids).logits, source(input_ids=ids).logits
    assert torch.allclose(ours[..., : len(old)], theirs, atol=1e-6)


@pytest.mark.parametrize("name", ["lora", "joint"])
def test_images_become_sixteen_tokens_and_captions_stand_in_for_them(
    decoder: Path, name: str
) -> None:
    processor = build_processor(decoder)
    for row in ROWS:
        inputs = train_decoder.ENCODE[name](row, processor)
        images = (inputs["input_ids"] == processor.image_token_id).sum()
        assert images == (0 if name == "lora" else WORDS * len(row.drawings))
        assert ("pixel_values" in inputs) == (name == "joint" and bool(row.drawings))
        text = processor.tokenizer.decode(inputs["input_ids"])
        for drawing in row.drawings if name == "lora" else ():
            words = [f" {word}" if word.isalpha() else word for word in caption(drawing)]
            assert f"<global-img>{''.join(words)}<fake" in text
        assert "<|im_start|>system" not in text
        for user, answer in row.turns:
            assert f"{user}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>" in text


def test_exact_visual_tokens_are_read_as_captions(decoder: Path) -> None:
    """A model whose visual tokens are the words' embeddings gives the logits of the text."""
    model, processor = adapters.build_adapted(decoder, PARAMS)
    words = train_tower.word_embeddings(model, processor.tokenizer)
    drawings = [drawing for row in ROWS for drawing in row.drawings]
    exact = words[train_tower.word_numbers(drawings)]  # [images, words, d]
    model.model.connector.forward = lambda _: exact
    pad = processor.tokenizer.pad_token_id
    batches = [
        collate([encode(row, processor) for row in ROWS], pad_token_id=pad)
        for encode in train_decoder.ENCODE.values()
    ]
    assert torch.allclose(*(logits(model, batch) for batch in batches), atol=1e-6)


def test_the_loss_tells_words_apart_and_is_least_at_the_right_ones() -> None:
    torch.manual_seed(0)
    words, targets = torch.randn(5, 8), torch.tensor([[0, 3], [4, 1]])
    exact = words[targets]
    distances = train_tower.squared_distances(exact, words)
    slow = (exact[:, :, None] - words).square().sum(-1)
    assert torch.allclose(distances, slow, atol=1e-5)
    loss = partial(train_tower.caption_loss, targets=targets, words=words, sharpness=8.0)
    assert 0 <= loss(exact) < 0.01
    assert loss(exact + 0.5) > loss(exact) + 0.1
    assert loss(words[targets.flip(0)]) > loss(exact) + 1


def test_pixels_are_those_that_the_processor_gives_the_model(decoder: Path) -> None:
    processor = build_processor(decoder)
    row = next(row for row in ROWS if len(row.drawings) == 1)
    values = train_decoder.encode_with_images(row, processor)["pixel_values"][0]
    assert torch.equal(train_tower.pixels(row.drawings, processor), values)


def test_slower_modules_have_their_share_of_the_rate(decoder: Path) -> None:
    model = build_model(decoder, PARAMS["tower"], build_processor(decoder), 0)
    groups = fitting.build_optimizer(model, PHASE | {"slower": {"connector": 0.1}}).param_groups
    shares = {id(weight): group["share"] for group in groups for weight in group["params"]}
    decays = {id(weight): group["weight_decay"] for group in groups for weight in group["params"]}
    for name, weight in model.named_parameters():
        assert shares[id(weight)] == (0.1 if "connector" in name else 1.0)
        assert decays[id(weight)] == (0.01 if weight.dim() > 1 else 0.0)


@pytest.mark.parametrize("name", ["lora", "joint"])
def test_the_shares_of_a_gradient_add_up(decoder: Path, name: str) -> None:
    model, processor = adapters.build_adapted(decoder, PARAMS)
    for weight_name, weight in model.named_parameters():
        weight.requires_grad |= name == "joint" and adapters.sees(weight_name)
    encoded = [train_decoder.ENCODE[name](row, processor) for row in ROWS]
    pad = processor.tokenizer.pad_token_id
    gradients = []
    for shares, parts in (([Share(0, 1)], 1), ([Share(0, 2), Share(1, 2)], 3)):
        flat = fitting.flat_gradients(model)
        loss = sum(backward(model, encoded, share, pad, parts) for share in shares)
        gradients.append((loss, flat))
    (loss, whole), (split_loss, split) = gradients
    assert loss == pytest.approx(split_loss, rel=1e-5)
    assert whole.abs().max() > 0 and torch.allclose(whole, split, atol=1e-5)


def test_processes_draw_the_images_of_a_step_between_them() -> None:
    hand = DistortedHandwriting(0)
    draw = partial(train_tower.drawings_of_step, 3, batch=64, seed=0, hand=hand)
    together, one, other = draw(Share(0, 1)), draw(Share(0, 2)), draw(Share(1, 2))
    assert len(together) == 64 and len(one) == len(other) == 32
    assert {drawing.png for drawing in together} == {drawing.png for drawing in one + other}


class Killed(Exception):
    pass


def trains(name: str, decoder: Path, folder: Path, monkeypatch: Any, *, killed: bool) -> bytes:
    """The weights after a step of the training, which is killed at its first checkpoint."""
    folder.mkdir()

    def run(number: int) -> None:
        meeting = str(folder / f"meeting-{number}")
        fitting.run_process(Share(0, 1), meeting, one_step(name, decoder, folder))

    if killed:
        save = fitting.save_checkpoint

        def save_and_die(*inputs: Any) -> None:
            save(*inputs)
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(fitting, "save_checkpoint", save_and_die)
            with pytest.raises(Killed):
                run(0)
        torch.distributed.destroy_process_group()
        assert not (folder / "out").exists()
        assert (folder / "checkpoint/step.json").read_text() == "2"
    run(1)
    return (folder / "out").read_bytes()


def one_step(name: str, decoder: Path, folder: Path) -> Any:
    checkpoint, out = folder / "checkpoint", folder / "out"
    if name == "tower":
        return partial(train_tower.train, params=PARAMS, decoder=decoder, at=checkpoint, out=out)
    files = train_decoder.Files(decoder, [], checkpoint, out)
    return partial(train_decoder.train, name=name, params=PARAMS, files=files)


@pytest.mark.parametrize("name", ["tower", "lora", "joint"])
def test_a_killed_step_resumes_to_the_bit(
    name: str, decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trains(name, decoder, tmp_path / "whole", monkeypatch, killed=False)
    assert trains(name, decoder, tmp_path / "killed", monkeypatch, killed=True) == whole
    weights = load_file(tmp_path / "whole/out")
    model, _ = adapters.build_adapted(decoder, PARAMS)
    before = dict(model.named_parameters())
    moved = {key for key, value in weights.items() if not torch.equal(value, before[key])}
    assert any(adapters.sees(key) for key in moved) == (name in ("tower", "joint"))
    assert any("lora_B" in key for key in moved) == (name in ("lora", "joint"))


def test_the_merged_model_computes_what_the_adapted_one_does(
    decoder: Path, adapted: tuple[Any, Any]
) -> None:
    model, processor = adapted
    fresh = build_model(decoder, PARAMS["tower"], processor, 0)
    plain = copy.deepcopy(fresh)
    pad = processor.tokenizer.pad_token_id
    rows = [train_decoder.encode_with_images(row, processor) for row in ROWS]
    inputs = collate(rows, pad_token_id=pad)
    merged = merge.merged(model, fresh)
    assert torch.allclose(logits(model, inputs), logits(merged, inputs), atol=1e-5)
    assert not torch.allclose(logits(model, inputs), logits(plain, inputs), atol=1e-2)
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]


def test_the_checkpoint_is_stock_and_answers_about_an_image(
    decoder: Path, adapted: tuple[Any, Any], tmp_path: Path
) -> None:
    model, processor = adapted
    adapters.save_weights(model, tmp_path / "joint")
    adapters.main(
        ["--source", str(tmp_path / "joint"), "--out", str(tmp_path / "committed")],
        standalone_mode=False,
    )
    committed = load_file(tmp_path / "committed")
    assert {value.dtype for value in committed.values()} == {torch.bfloat16}
    other, _ = adapters.build_adapted(decoder, PARAMS)
    adapters.load_weights(other, tmp_path / "committed")
    fresh = build_model(decoder, PARAMS["tower"], processor, 5)
    merge.save(merge.merged(other, fresh), processor, decoder, tmp_path / "model")
    opened = AutoModelForImageTextToText.from_pretrained(tmp_path / "model", dtype="auto")
    assert type(opened) is Idefics3ForConditionalGeneration and opened.dtype == torch.bfloat16
    assert opened.lm_head.weight is opened.get_input_embeddings().weight
    for name, weight in fresh.named_parameters():
        assert torch.equal(opened.state_dict()[name], weight), name
    found = architecture(opened.config.to_dict(), "model")
    assert (found.model_type, found.n_layers, found.takes_images) == ("idefics3", 3, True)
    opener = AutoProcessor.from_pretrained(tmp_path / "model")
    row = next(row for row in ROWS if row.drawings)
    inputs = encode_prompt(opener, row.as_fine_vision())
    expected = encode_prompt(processor, row.as_fine_vision())
    assert {*inputs} == {*expected}
    assert all(torch.equal(inputs[name], expected[name]) for name in inputs)
    batch = collate([inputs], pad_token_id=0)
    batch.pop("labels")
    answer = opened.generate(**batch, max_new_tokens=2)
    assert answer.shape[1] - len(inputs["input_ids"]) in (1, 2)


def test_weights_of_other_sizes_are_refused(
    decoder: Path, adapted: tuple[Any, Any], tmp_path: Path
) -> None:
    adapters.save_weights(adapted[0], tmp_path / "weights")
    other, _ = adapters.build_adapted(decoder, PARAMS | {"adapters": {"rank": 3, "first_layer": 1}})
    with pytest.raises(InputError, match=r"lora_A.*does not fit the sizes in params\.yaml"):
        adapters.load_weights(other, tmp_path / "weights")


@pytest.mark.parametrize(
    ("command", "missing", "message"),
    [
        (train_tower.main, "decoder", r"--decoder nowhere: no checkpoint there; build it"),
        (train_decoder.main, "decoder", r"--decoder nowhere: no checkpoint there; build it"),
        (merge.main, "decoder", r"--decoder nowhere: no checkpoint there; build it"),
        (train_decoder.main, "weights", r"lora\.safetensors: no trained weights there; train"),
        (merge.main, "weights", r"adapters\.safetensors: no trained weights there; train"),
    ],
)
def test_missing_inputs_are_named_before_long_work(
    command: Any,
    missing: str,
    message: str,
    decoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "params.yaml", PARAMS)
    options = ["--decoder", "nowhere" if missing == "decoder" else str(decoder)]
    name = ["joint"] if command is train_decoder.main else []
    with pytest.raises(InputError, match=message):
        command([*name, *options], standalone_mode=False)


@pytest.mark.slow
def test_the_commands_train_in_two_processes_and_build_a_model(
    decoder: Path, tmp_path: Path
) -> None:
    write_json(tmp_path / "params.yaml", PARAMS)  # JSON is YAML

    def run(*command: str) -> None:
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'data/demo'}"}
        script, *options = command
        arguments = [sys.executable, str(ROOT / "data/smolvlm" / script), *options]
        subprocess.run(arguments, cwd=tmp_path, env=environment, check=True)

    run("train_tower.py", "--decoder", str(decoder))
    run("train_decoder.py", "lora", "--decoder", str(decoder))
    run("train_decoder.py", "joint", "--decoder", str(decoder))
    run("adapters.py")
    run("merge.py", "--decoder", str(decoder))
    assert {path.name for path in tmp_path.iterdir()} == {
        *("params.yaml", "tower.safetensors", "lora.safetensors", "joint.safetensors"),
        *("adapters.safetensors", "model", ".training"),
    }
    assert not [*(tmp_path / ".training").iterdir()]
    config = (tmp_path / "model/config.json").read_text()
    assert str(decoder) not in config
    AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
