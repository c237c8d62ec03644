"""The choice of an attention implementation, with stand-ins for the packages.

They prove the choice and what reaches a kernel, not the kernels: see tests/attention_packages.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import attention_packages
import family_models
import pytest
import torch
from attention_packages import installed
from pydantic import ValidationError
from transformers.utils.import_utils import KERNELS_MIN_VERSION

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.healing.finetune import _attention
from interlace.model.attention import PACKAGES, chosen_attention
from interlace.model.open import attention, open_model
from interlace.params.evaluating import Evaluate
from interlace.params.healing import Recipe
from interlace.params.measuring import Spans
from interlace.params.timing import Ttft

FA2, FA3, FA4 = "flash-attn 2.8.3", "flash-attn-3 3.0.0", "flash-attn-4 4.0.0b36"
FLA = "fla-core 0.6.0"
KERNELS = f"kernels {KERNELS_MIN_VERSION}"
HOPPER, AMPERE, TURING = (9, 0), (8, 0), (7, 5)


@dataclass(frozen=True)
class Case:
    """A machine.

    Attributes:
        packages: that are installed.
        capability: of its GPU; None: it has none.
        auto: the version of FlashAttention that auto takes; None: the model's own choice.
        reasons: against versions 2, 3 and 4; None: usable.
    """

    packages: tuple[str, ...]
    capability: tuple[int, int] | None
    auto: int | None
    reasons: tuple[str | None, str | None, str | None]


def lacks(version: int, *others: int) -> str:
    names = [f"flash_attention_{n}" for n in (version, *others)]
    installed = "; ".join(f"{PACKAGES[name]} is {name}" for name in names[1:])
    return f"needs the package {PACKAGES[names[0]]}" + (f" ({installed})" if others else "") + ";"


CASES = {
    "nothing": Case((), HOPPER, None, (lacks(2), lacks(3), lacks(4))),
    "2": Case((FA2,), HOPPER, 2, (None, lacks(3, 2), lacks(4, 2))),
    "3": Case((FA3,), HOPPER, 3, (lacks(2, 3), None, lacks(4, 3))),
    "4": Case((FA4,), HOPPER, 4, (lacks(2, 4), lacks(3, 4), None)),
    "2 and 4": Case((FA2, FA4), HOPPER, 2, (None, lacks(3, 2, 4), None)),
    "all": Case((FA2, FA3, FA4, FLA), HOPPER, 2, (None, None, None)),
    "linear attention": Case((FLA,), HOPPER, None, (lacks(2), lacks(3), lacks(4))),
    "an old 2": Case(
        ("flash-attn 2.1.0",), HOPPER, None, ("flash-attn is too old", lacks(3), lacks(4))
    ),
    "4 on an A100": Case(
        (FA4,), AMPERE, None, (lacks(2, 4), lacks(3, 4), "compute capability 9.0, .* is 8.0;")
    ),
    "2 on a T4": Case((FA2,), TURING, None, ("capability 8.0", "capability 8.0", "9.0")),
    "2 without a GPU": Case((FA2,), None, None, ("needs a GPU", "needs a GPU", "needs a GPU")),
    "kernels": Case((KERNELS,), HOPPER, None, (None, None, None)),
}


def choose(requested: str, dtype: str = "bfloat16") -> str | None:
    return chosen_attention(
        requested, dtype, model_type="qwen3_vl", build=lambda name: torch.nn.Module()
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_implementation_is_usable_or_its_lack_is_one_line(case: Case, tmp_path: Path) -> None:
    with installed(tmp_path, *case.packages, capability=case.capability):
        assert choose("auto") == (case.auto and f"flash_attention_{case.auto}")
        for name, reason in zip(PACKAGES, case.reasons, strict=True):
            if reason is None:
                assert choose(name) == name
                continue
            with pytest.raises(InputError, match=f"^attn_implementation = {name} with") as error:
                choose(name)
            assert error.match(reason.replace("(", r"\(").replace(")", r"\)"))
            assert str(error.value).endswith("; set attn_implementation to auto")
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("requested", ["auto", "flash_attention_2"])
def test_flash_attention_is_for_16_bits(requested: str, tmp_path: Path) -> None:
    with installed(tmp_path, FA2, capability=HOPPER):
        for dtype in ("bfloat16", "float16"):
            assert choose(requested, dtype) == "flash_attention_2"
        if requested == "auto":
            assert choose(requested, "float32") is None
        else:
            with pytest.raises(InputError, match="dtype = float32: needs bfloat16 or float16"):
                choose(requested, "float32")


def test_a_kernel_of_the_hub_needs_the_package_kernels(tmp_path: Path, dense_dir: Path) -> None:
    name = "kernels-community/flash-attn2"
    with (
        installed(tmp_path / "without", capability=HOPPER),
        pytest.raises(InputError, match="needs the package kernels"),
    ):
        choose(name)
    with installed(tmp_path / "with", KERNELS, capability=HOPPER):
        assert choose(name) == name
        with pytest.raises(InputError, match=f"= {name} .*; set attn_implementation to auto"):
            attention(dense_dir, name, "bfloat16")  # there is no network here


@pytest.mark.parametrize("section", [Spans, Recipe, Evaluate, Ttft])
def test_four_stages_take_the_same_implementations(section: Callable[..., Any]) -> None:
    assert section().attn_implementation == "auto"
    for name in ("eager", "flash_attention_3", "kernels-community/flash-attn2"):
        assert section(attn_implementation=name).attn_implementation == name
    for name in ("flash_attention_5", "somebody/flash-attn2", "flash_attn"):
        with pytest.raises(ValidationError, match="must be one of auto, sdpa, eager, flash_atten"):
            section(attn_implementation=name)


def test_training_takes_what_the_other_stages_take(dense_dir: Path, tmp_path: Path) -> None:
    with installed(tmp_path, FA2, capability=HOPPER):
        assert _attention(Checkpoint(dense_dir), Recipe()) == "flash_attention_2"
        assert _attention(Checkpoint(dense_dir), Recipe(dtype="float32")) is None
        eager = Recipe(attn_implementation="eager")
        assert _attention(Checkpoint(dense_dir), eager) == "eager"


def test_an_unusable_implementation_is_refused_before_the_weights_are_read(
    dense_dir: Path,
) -> None:
    with pytest.raises(InputError, match=r"attn_implementation = flash_attention_2 .* to auto"):
        open_model(dense_dir, dtype="float32", attn_implementation="flash_attention_2")


def test_the_tower_of_pixtral_needs_a_newer_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = family_models.save("llava, pixtral", tmp_path / "model")
    with installed(tmp_path / "packages", FA2, capability=HOPPER):
        monkeypatch.setattr("transformers.__version__", "5.22.4")
        assert attention(folder, "auto", "bfloat16") is None
        assert "llava: no flash_attention_2: the tower of Pixtral" in capsys.readouterr().err
        with pytest.raises(InputError, match=r"Pixtral needs transformers 5\.23 .* to auto$"):
            attention(folder, "flash_attention_2", "bfloat16")
        monkeypatch.setattr("transformers.__version__", "5.23.0.dev0")
        assert attention(folder, "auto", "bfloat16") == "flash_attention_2"


def test_a_package_that_failed_to_load_is_refused_again(tmp_path: Path) -> None:
    folder = family_models.save("gpt_oss", tmp_path / "model")
    with installed(tmp_path / "packages", FA2, capability=HOPPER):
        assert [attention(folder, "auto", "bfloat16") for _ in range(2)] == [None, None]


@pytest.mark.parametrize(
    ("package", "name", "module"),
    [
        (FA2, "flash_attention_2", "flash_attn"),
        (FA3, "flash_attention_3", "flash_attn_interface"),
        (FA4, "flash_attention_4", "flash_attn.cute"),
    ],
)
def test_transformers_calls_the_kernel_that_was_chosen(
    package: str, name: str, module: str, tmp_path: Path
) -> None:
    folder = family_models.save("qwen3_vl", tmp_path / "model")
    with installed(tmp_path / "packages", package, capability=HOPPER):
        chosen = attention(folder, "auto", "bfloat16")
        assert chosen == name
        attention_packages.on_cpu(folder, chosen)(
            **family_models.inputs("qwen3_vl"), use_cache=False
        )
        assert importlib.import_module(module).CALLS


def test_stand_ins_are_named_by_the_packages_of_the_real_ones() -> None:
    names = {package.split()[0] for package in attention_packages.PACKAGES}
    assert set(PACKAGES.values()) <= names
