"""A reference run tunes the planned layers of the dense model by the recipe."""

from __future__ import annotations

from pathlib import Path

from sources_json import pinned_model
from training_runs import RECIPE, moved_weights

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.healing.heal import train_reference
from interlace.params.healing import Recipe
from interlace.selection.reference import reference_plan


def test_the_recipe_tunes_the_planned_layers_of_the_dense_model(
    project: Path, dense_dir: Path, tmp_path: Path
) -> None:
    plan = reference_plan("dense-ft", 0.34, None, pinned_model())
    assert plan is not None
    train_reference(
        Checkpoint(dense_dir),
        project / "data/train",
        tmp_path / "reference",
        plan=plan,
        params=Recipe(**(RECIPE | {"max_steps": 2})),
        seed=0,
        scratch=tmp_path / "scratch",
    )
    moved = moved_weights(dense_dir, tmp_path / "reference")
    assert {name.split(".")[3] for name in moved} == {"4", "5"}
