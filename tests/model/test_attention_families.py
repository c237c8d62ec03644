"""Families under flash attention: the same numbers, or a refusal, with a stand-in for its package.

The stand-in computes what the real kernel computes: causal attention, windows, caps. What else a
family masks does not reach it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import family_models
import pytest
import torch
from attention_packages import installed, on_cpu

from interlace.errors import InputError
from interlace.model.attention import PIXTRAL_SINCE, SEES_AHEAD
from interlace.model.open import attention

REFUSING = (*SEES_AHEAD, "lfm2_vl", "granite4_vision", "gpt_oss", "intern")
if family_models.before(*PIXTRAL_SINCE):
    REFUSING += ("llava, pixtral", "mistral3")


@pytest.fixture(scope="module")
def flash_attention_2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with installed(tmp_path_factory.mktemp("packages"), "flash-attn 2.8.3", capability=(9, 0)):
        yield


@pytest.mark.parametrize("name", family_models.TINY)
@pytest.mark.usefixtures("flash_attention_2")
def test_a_family_computes_the_same_with_flash_attention_or_does_not_take_it(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without `SEES_AHEAD`, Gemma 3 and PaliGemma would compute other logits without a word."""
    folder = family_models.save(name, tmp_path / "model")
    inputs = family_models.inputs(name)
    with torch.no_grad():
        chosen = attention(folder, "auto", "bfloat16")
        if chosen is None:
            assert "no flash_attention_2: " in capfd.readouterr().err
            assert name.startswith(REFUSING)
            with pytest.raises(InputError, match="attn_implementation = flash_attention_2"):
                attention(folder, "flash_attention_2", "bfloat16")
            return
        expected = on_cpu(folder, "eager")(**inputs, use_cache=False).logits
        logits = on_cpu(folder, chosen)(**inputs, use_cache=False).logits
        assert importlib.import_module("flash_attn").CALLS
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
