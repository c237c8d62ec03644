"""Libraries that show a training while it runs, `finetune.report_to`, by their own writers."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from interlace.errors import InputError
from interlace.params.healing import Library, Recipe


class Report(Protocol):
    """A library's record of a training. It begins anew whenever the training is resumed."""

    def add(self, row: Mapping[str, float]) -> None:
        """Record the values of a row of the curve at its `step`."""

    def close(self) -> None:
        """End the record: the training is complete."""


def check_reports(recipe: Recipe) -> None:
    """Check that the libraries are installed.

    Raises:
        InputError: one is not.
    """
    for name in recipe.report_to:
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"finetune.report_to = {name}: the package {name} is not installed; pip install"
                f" {name}, or remove it from the list"
            )


def open_reports(names: Sequence[Library], folder: Path) -> list[Report]:
    """Begin a record in each library, in a folder of its own."""
    kinds: dict[Library, type[TensorBoard | DVCLive]] = {
        "tensorboard": TensorBoard,
        "dvclive": DVCLive,
    }
    return [kinds[name](folder / name) for name in names]


class TensorBoard:
    """An event file. A resumed training adds one; TensorBoard hides the steps of earlier ones."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=1)

    def add(self, row: Mapping[str, float]) -> None:
        """See `Report`."""
        for name, value in _values(row).items():
            self._writer.add_scalar(name, value, int(row["step"]))
        self._writer.flush()

    def close(self) -> None:
        """See `Report`."""
        self._writer.close()


class DVCLive:
    """A table per value, and the last values as metrics. A resumed training replaces them."""

    def __init__(self, folder: Path) -> None:
        from dvclive import Live

        self._live = Live(str(folder), save_dvc_exp=False, dvcyaml=False)

    def add(self, row: Mapping[str, float]) -> None:
        """See `Report`."""
        self._live.step = int(row["step"])
        for name, value in _values(row).items():
            self._live.log_metric(name, value)
        self._live.next_step()

    def close(self) -> None:
        """See `Report`."""
        self._live.end()


def _values(row: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "step"}
