"""The check that a model opens as later stages open it: its processor, its template, its weights.

Nothing is computed, and no weight is read: the model is opened on torch's meta device.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import re
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.checkpoint.companions import SMALL_FILES, companions
from interlace.errors import InputError, complaint
from interlace.model.families import vision_token_ids
from interlace.model.files import CONFIG, read_object
from interlace.params.whole import Params
from interlace.sources.hub import hub_snapshot
from interlace.sources.pinned import PinnedModel
from interlace.system.resumable import keep_json, read_digests

TEMPLATE_SECONDS = 20  # for one short conversation; more would take a data set days
_LONGEST = 100_000  # letters of a short question in its template
_LIBRARIES = ("transformers", "tokenizers", "torch")
_TOKEN = re.compile(r"token_(id|ids|index)$")
_SIDES = ("patch_size", "temporal_patch_size")  # of images, as processor and model cut them


class ImageBounds(NamedTuple):
    """The bounds on an image's area that a section of the parameters asks for, pixels."""

    section: str
    min_pixels: int | None = None
    max_pixels: int | None = None

    def open_processor(self, checkpoint: Checkpoint) -> Any:
        """Open the checkpoint's processor with these bounds.

        Raises:
            InputError: see `model.open.open_processor`; names the parameters.
        """
        bounds = {"min_pixels": self.min_pixels, "max_pixels": self.max_pixels}
        given = {name: bound for name, bound in bounds.items() if bound is not None}
        try:
            return checkpoint.open_processor(**given)
        except InputError as error:
            if not given:
                raise
            fields = ", ".join(f"{self.section}.{name} = {n}" for name, n in given.items())
            raise InputError(f"{fields}: {error}") from None


def image_bounds(params: Params) -> list[ImageBounds]:
    """Return the bounds on images that stages open the processor with."""
    tuned = params.finetune
    return [
        ImageBounds("measure", max_pixels=params.measure.max_pixels),
        ImageBounds("finetune", tuned.min_pixels, tuned.max_pixels),
        ImageBounds("evaluate", max_pixels=params.evaluate.max_pixels),
    ]


def check_pinned_model(model: PinnedModel, bounds: Sequence[ImageBounds], *, checked: Path) -> None:
    """Check that a pinned model opens, before any long work.

    Of a model on the hub only the processor is opened: its weights are not fetched yet.

    Args:
        model: as `pin_model` returns it.
        bounds: those that the processor is opened with; a question is encoded with the first ones.
        checked: file of the digests that passed earlier.

    Raises:
        InputError: names the file or the folder, and what is wrong.
    """
    digest = _digest(model, bounds)
    digests = read_digests(checked)
    if digest in digests:
        return
    local = model.files is not None
    folder = Path(model.id) if local else hub_snapshot(
        model.id, model.revision, "model", list(SMALL_FILES)
    )  # fmt: skip
    checkpoint = Checkpoint(folder, model.trust_remote_code)
    for path in companions(folder, trust_remote_code=model.trust_remote_code):
        if path.suffix == ".json":
            read_object(path)
    with warnings.catch_warnings(action="ignore"):
        _refuse_odd_tokens(checkpoint.config, str(checkpoint.config_file))
        if local:
            checkpoint.check()
            checkpoint.check_opens()
        _refuse_uneven_heads(checkpoint)
        for one in bounds[1:]:
            one.open_processor(checkpoint)
        check_processor(checkpoint, bounds[0])
    keep_json(checked, sorted(digests | {digest}))


def _digest(model: PinnedModel, bounds: Sequence[ImageBounds]) -> str:
    """Return a digest of the files, and of the libraries that open them."""
    versions = [importlib.metadata.version(name) for name in _LIBRARIES]
    facts = [model.model_dump(mode="json", exclude={"id"} if model.files else None), bounds]
    return hashlib.sha256(json.dumps([facts, versions], sort_keys=True).encode()).hexdigest()


def check_processor(checkpoint: Checkpoint, bounds: ImageBounds) -> None:
    """Encode one row as `collect` does, and see that the model can take it.

    Raises:
        InputError: the processor or its template fails, or is another model's.
    """
    from interlace.model.chat import chat_messages, encode_messages

    folder, processor = checkpoint.folder, bounds.open_processor(checkpoint)
    try:
        with _time_limit(f"{folder}: the chat template", TEMPLATE_SECONDS):
            messages = chat_messages(_row(checkpoint.architecture.takes_images))[:1]
            text = processor.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
            if len(text) > _LONGEST:
                raise InputError(
                    f"{folder}: the chat template writes {len(text)} letters for a short question;"
                    " mend it"
                )
            inputs = encode_messages(processor, messages)
    except InputError:
        raise
    except Exception as error:  # whatever a template, a tokenizer or an image processor raises
        raise InputError(
            f"{folder}: its processor cannot encode a question: {complaint(error)};"
            " copy the processor's files again"
        ) from None
    _refuse_foreign(checkpoint, processor, inputs["input_ids"].tolist())
    _refuse_unknown_tokens(checkpoint, processor.tokenizer)
    _refuse_unknown_ends(checkpoint, processor.tokenizer)


def _refuse_unknown_tokens(checkpoint: Checkpoint, tokenizer: Any) -> None:
    """Refuse a tokenizer with tokens that have no embedding: text that holds one ends a run."""
    vocabulary = checkpoint.transformers_config().get_text_config(decoder=True).vocab_size
    token, number = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if number >= vocabulary:
        raise InputError(
            f"{checkpoint.folder}: the tokenizer writes {token!r} as token {number}, and the model"
            f" knows {vocabulary}; enlarge the model by resize_token_embeddings({number + 1}), or"
            " remove the token from the tokenizer's files"
        )


def _refuse_unknown_ends(checkpoint: Checkpoint, tokenizer: Any) -> None:
    """Refuse an end of answers that the model can never write: its answers would not end."""
    from interlace.model.open import end_tokens

    vocabulary = checkpoint.transformers_config().get_text_config(decoder=True).vocab_size
    for token in end_tokens(_generation_config(checkpoint.folder), tokenizer):
        if type(token) is not int or not 0 <= token < vocabulary:
            raise InputError(
                f"{checkpoint.folder}: eos_token_id = {_shortened(token)} is no token of the model,"
                f" which knows 0 to {vocabulary - 1}; mend it in generation_config.json, or in"
                " config.json if there is none"
            )


def _generation_config(folder: Path) -> Any:
    """Return the settings of generation as transformers gives them to a model that it opens."""
    from transformers import GenerationConfig

    try:
        if (folder / "generation_config.json").exists():
            return GenerationConfig.from_pretrained(folder)
        return GenerationConfig.from_pretrained(folder, CONFIG, _from_model_config=True)
    except (OSError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{folder}: the settings of generation cannot be read: {complaint(error)}; mend"
            " generation_config.json"
        ) from None


def _refuse_odd_tokens(config: dict[str, Any], where: str) -> None:
    """Refuse token ids that no tensor can hold, wherever a configuration names some."""
    for name, value in config.items():
        if isinstance(value, dict):
            _refuse_odd_tokens(value, where)
        elif _TOKEN.search(name) and value is not None:
            for token in value if isinstance(value, list) else [value]:
                if type(token) is not int or abs(token) >= 2**31:
                    raise InputError(
                        f"{where}: {name} = {_shortened(value)}: expected the number of a token;"
                        " copy it again"
                    )


def _refuse_uneven_heads(checkpoint: Checkpoint) -> None:
    """Refuse attention heads that do not divide a section's width; the weights' shapes hide it."""
    config = checkpoint.transformers_config()
    for section in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        width = getattr(section, "hidden_size", None)
        for name in ("num_heads", "num_attention_heads"):
            heads = getattr(section, name, None)
            if not isinstance(width, int) or not isinstance(heads, int):
                continue
            if not getattr(section, "head_dim", None) and (heads < 1 or width % heads):
                raise InputError(
                    f"{checkpoint.config_file}: {name} = {heads} does not divide hidden_size ="
                    f" {width} of {section.model_type}; copy the file again"
                )


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _refuse_foreign(checkpoint: Checkpoint, processor: Any, ids: list[int]) -> None:
    """Refuse a processor that was made for another model."""
    config = checkpoint.transformers_config()
    vocabulary = config.get_text_config(decoder=True).vocab_size
    faults = []
    if max(ids) >= vocabulary:
        faults.append(f"token {max(ids)}, and the model knows {vocabulary}")
    if (tokens := vision_token_ids(config)) and not set(tokens) & set(ids):
        faults.append(f"no token for an image ({', '.join(map(str, tokens))})")
    vision = getattr(config, "vision_config", None)
    images = getattr(processor, "image_processor", None)
    for name in _SIDES:
        side, expected = getattr(images, name, None), getattr(vision, name, None)
        if isinstance(side, int) and isinstance(expected, int) and side != expected:
            faults.append(f"{name} = {side}, and the model has {expected}")
    if faults:
        raise InputError(
            f"{checkpoint.folder}: the processor is another model's: it writes {faults[0]}; copy"
            " the processor's files again"
        )


def _row(with_images: bool) -> dict[str, Any]:
    """Return a row with a question, about a picture of one colour where there are images."""
    from PIL import Image

    picture = io.BytesIO()
    Image.new("RGB", (96, 64), "teal").save(picture, "PNG")
    return {
        "images": [{"bytes": picture.getvalue(), "path": None}] if with_images else [],
        "texts": [{"user": "What is shown?", "assistant": "Nothing."}],
    }


class _Expired(BaseException):  # no `except Exception` of a library may swallow it
    pass


@contextmanager
def _time_limit(subject: str, seconds: float) -> Iterator[None]:
    """Stop the block after some seconds, where the system has alarms.

    Raises:
        InputError: it took longer.
    """
    alarms = hasattr(signal, "setitimer")
    if not alarms or threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(*_: object) -> None:
        raise _Expired

    handler = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _Expired:
        raise InputError(
            f"{subject} took more than {seconds:g} seconds for one short conversation; mend it"
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
