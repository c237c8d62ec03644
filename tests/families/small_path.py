"""The small path: what Interlace does with a model, tried on a tiny random one of a family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import family_models
import torch
from plans import make_plan

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.healing.finetune import freeze_all_but, set_training
from interlace.measurements.cosines import measure_batch
from interlace.model.answer_loss import AnswerLoss
from interlace.model.bypass import bypassed
from interlace.model.chat import collate
from interlace.model.decoder import decoder_layers
from interlace.model.families import as_read, decoder_kind
from interlace.model.open import open_model
from interlace.model.rules import DECODERS
from interlace.model.states import STATES, residual_states
from interlace.params.measuring import Collect
from interlace.pruning.export import export_checkpoint
from interlace.pruning.parity import Prompt, first_difference, round_weights, run_states

DROP = [1, 3]
TUNED = [1, 2]  # positions in the pruned model
NEVER = list(range(family_models.IMAGE, 100))  # tokens that stand for pictures, and their marks


@dataclass(frozen=True)
class Trial:
    """A tiny model of a family, in a folder of its own."""

    name: str
    folder: Path

    @cached_property
    def dense(self) -> Path:
        return family_models.save(self.name, self.folder / "dense")

    @cached_property
    def model(self) -> Any:
        return open_model(self.dense, dtype="float32")

    @cached_property
    def reloaded(self) -> Any:
        """The pruned model, which the last step trains."""
        return open_model(self.pruned(), dtype="float32")

    @cached_property
    def inputs(self) -> Any:
        return family_models.inputs(self.name)

    @cached_property
    def keep(self) -> list[int]:
        return [layer for layer in range(len(decoder_layers(self.model))) if layer not in DROP]

    def pruned(self, dtype: str = "float32") -> Path:
        out = self.folder / dtype
        if not out.exists():
            plan = make_plan(DROP, [], len(self.keep) + len(DROP))
            export_checkpoint(self.dense, plan, out, dtype=dtype)  # type: ignore[arg-type]
        return out


def opens(trial: Trial) -> None:
    checkpoint = Checkpoint(trial.dense)
    checkpoint.check()
    assert checkpoint.architecture.n_layers == len(decoder_layers(trial.model))


def passes(trial: Trial) -> None:
    with torch.inference_mode():
        logits = trial.model(**trial.inputs).logits
    assert logits.isfinite().all()


def gives_states(trial: Trial) -> None:
    with torch.inference_mode():
        inputs, outputs = residual_states(trial.model, trial.inputs)
    assert len(inputs) == len(outputs) == len(trial.keep) + len(DROP)
    shape = (*trial.inputs["input_ids"].shape, 32)
    assert {state.shape for state in inputs + outputs} == {shape}


def is_scored(trial: Trial) -> None:
    for mode in STATES:
        measured = measure_batch(trial.model, trial.inputs, Collect(mode=mode))  # type: ignore[arg-type]
        assert (abs(measured["cosines"][..., 0]) <= 1 + 1e-4).all()


def keeps_the_fields_of_kept_layers(trial: Trial) -> None:
    dense, pruned = (
        as_read(Checkpoint(folder).config, "c")[1] for folder in (trial.dense, trial.pruned())
    )
    rules = DECODERS[decoder_kind(Checkpoint(trial.dense).config, "c")]
    for name in rules.lists:
        if isinstance(dense.get(name), list):
            assert pruned[name] == [dense[name][layer] for layer in trial.keep], name
    for name in rules.indices:
        if isinstance(dense.get(name), list) and rules.indices != ("mlp_only_layers",):
            assert pruned[name] == [i for i, n in enumerate(trial.keep) if n in dense[name]], name


def reloads_in_bfloat16(trial: Trial) -> None:
    whole = open_model(trial.dense, dtype="bfloat16")
    round_weights(whole, torch.bfloat16)
    reloads(trial, whole, open_model(trial.pruned("bfloat16"), dtype="bfloat16"))


def reloads(trial: Trial, whole: Any, reloaded: Any) -> None:
    prompts = [Prompt("one", trial.inputs)]
    written = next(run_states(reloaded, prompts, "written"))
    with bypassed(whole, DROP):
        assert first_difference(next(run_states(whole, prompts, "dense")), written) is None
    assert len(written) == len(trial.keep) + 1
    assert first_difference(next(run_states(whole, prompts, "dense"))[len(DROP) :], written)


def generates(trial: Trial) -> None:
    tokens = trial.reloaded.generate(
        **trial.inputs, do_sample=False, min_new_tokens=2, max_new_tokens=2, suppress_tokens=NEVER
    )
    assert tokens.shape[1] == trial.inputs["input_ids"].shape[1] + 2


def learns(trial: Trial) -> None:
    model: Any = set_training(trial.reloaded)
    freeze_all_but(model, TUNED)
    tuned = [weight for weight in model.parameters() if weight.requires_grad]
    frozen = [weight.clone() for weight in model.parameters() if not weight.requires_grad]
    before = [weight.detach().clone() for weight in tuned]
    batch = collate(family_models.samples(trial.name), pad_token_id=2)
    AnswerLoss(model)(batch, batch.pop("labels")).backward()
    torch.optim.AdamW(tuned, lr=1e-2).step()
    assert any(not torch.equal(*pair) for pair in zip(tuned, before, strict=True))
    rest = [weight for weight in model.parameters() if not weight.requires_grad]
    assert all(torch.equal(*pair) for pair in zip(rest, frozen, strict=True))


STEPS: dict[str, Callable[[Trial], None]] = {
    "opens": opens,
    "passes": passes,
    "gives states": gives_states,
    "is scored": is_scored,
    "is pruned": keeps_the_fields_of_kept_layers,
    "reloads in float32": lambda trial: reloads(trial, trial.model, trial.reloaded),
    "reloads in bfloat16": reloads_in_bfloat16,
    "generates": generates,
    "learns": learns,
}


def try_path(name: str, folder: Path) -> str:
    """Take a family along the small path; return `works`, or the first step that fails and why."""
    trial = Trial(name, folder)
    for step, take in STEPS.items():
        try:
            take(trial)
        except Exception as error:  # whatever a family raises is what the table says
            words = " ".join(str(error).split())[:120]
            return f"fails where it {step}: {type(error).__name__}: {words}"
    return "works"
