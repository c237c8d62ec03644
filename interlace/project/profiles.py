"""Profiles: ready parameters for models, as the package ships them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from interlace.errors import InputError, did_you_mean, nearest_name
from interlace.params.section import validated
from interlace.params.whole import Params
from interlace.system.documents import as_yaml, parse_yaml

FILES = Path(__file__).with_name("files")  # in a clone, links to the files that it is run with
DEMO, DEFAULT = "demo", "one-gpu"
_PROCESSES = re.compile(r"--nproc[-_]per[-_]node[ =](\d+)")
_HOURS = re.compile(r"^# Hours: (.+)$", re.MULTILINE)
_SCORED = re.compile(r"^  (?:benchmarks: \[[^]]*\]|heldout: .*)\n", re.MULTILINE)
_BUILT = "data/"  # where a profile's model lies that is built in a clone
_HEADER = """\
# Written by `interlace init` from the profile {name}: what differs from the defaults.
# `python -m interlace.stages.NAME --help` lists all parameters of a stage of dvc.yaml, with their
# meaning, unit and default. `dvc exp run -S name=value` tries another value, `-S ++name=value` one
# that this file does not name.

"""


@dataclass(frozen=True)
class Profile:
    """The parameters of a run, as text with comments.

    Attributes:
        name: as a user types it.
        text: a params.yaml.
    """

    name: str
    text: str

    @property
    def params(self) -> Params:
        """The parameters, checked."""
        return validated(Params, parse_yaml(self.text, "params.yaml"), "params.yaml")

    @property
    def gpus(self) -> str:
        """The number of GPUs that `launch` asks for."""
        processes = _PROCESSES.search(self.params.launch)
        return processes[1] if processes else "0 or 1"

    @property
    def hours(self) -> str:
        """The hours of a run, by the comment that says so; with a ~ where they are a forecast."""
        hours = _HOURS.search(self.text)
        return hours[1] if hours else "unknown"

    @property
    def comes_without_model(self) -> bool:
        """True if the profile's model is built in a clone alone."""
        return self.name != DEMO and self.params.model.id.startswith(_BUILT)


def profile_names() -> list[str]:
    """Return the names of all profiles, the demo first."""
    return [DEMO, *sorted(path.stem for path in (FILES / "profiles").glob("*.yaml"))]


def read_profile(name: str) -> Profile:
    """Read a profile.

    Raises:
        InputError: there is none of this name.
    """
    if name not in profile_names():
        hint = did_you_mean(nearest_name(name, profile_names()))
        raise InputError(
            f"--profile = {name!r}: no such profile; {hint}`interlace init --list` lists them all"
        )
    file = FILES / "demo.yaml" if name == DEMO else FILES / "profiles" / f"{name}.yaml"
    return Profile(name, file.read_text(encoding="utf-8"))


def project_params(
    profile: Profile, model: str | None, data: str | None, heldout: str | None = None
) -> str:
    """Return the params.yaml of a project.

    Args:
        profile: to start from.
        model: an id on the hub or a folder, in place of the profile's.
        data: the same of the data.
        heldout: a file of rows to score models on, in place of the profile's benchmarks or file.

    Raises:
        InputError: the profile has no model of its own, or the values are not allowed.
    """
    if profile.comes_without_model and not (model and data):
        raise InputError(
            f"--profile {profile.name}: its model and data are built in a clone, by `make real`;"
            " give --model and --data"
        )
    text = profile.text
    for section, value in (("model", model), ("data", data)):
        if value is not None:
            line = as_yaml({"id": value}).rstrip()
            head, tail = text.split(f"\n{section}:\n  id: ")
            rest = tail.partition("\n")[2]
            text = f"{head}\n{section}:\n  {line}\n{rest}"
    if heldout is not None:
        section = f"\nevaluate:\n  {as_yaml({'heldout': heldout}).rstrip()}\n"
        text = re.sub(r"\nevaluate:.*\n", lambda _: section, _SCORED.sub("", text))
    values = text.partition("\n\n")[2] if profile.name == DEMO else text  # without a clone's words
    text = _HEADER.format(name=profile.name) + values
    validated(Params, parse_yaml(text, "params.yaml"), "params.yaml")
    return text
