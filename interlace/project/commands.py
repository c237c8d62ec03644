"""`interlace init`, `upgrade` and `scratch`: a project, its pipeline, its unfinished work."""

from __future__ import annotations

from pathlib import Path

import click
from rich import box

from interlace.errors import InputError
from interlace.printable import say
from interlace.project.layout import project_files
from interlace.project.profiles import DEFAULT, DEMO, Profile, profile_names, read_profile
from interlace.project.start import check_folder, check_programs, start_project
from interlace.project.upgrade import upgraded
from interlace.report.terminal.console import PlainTable, print_blocks
from interlace.system.scratch import (
    CACHES,
    REPLIES,
    WORK,
    ScratchEntry,
    clear_scratch,
    scratch_entries,
    scratch_root,
)


@click.command("init")
@click.argument("folder", metavar="DIR", required=False, type=click.Path(path_type=Path))
@click.option("--profile", metavar="NAME", help=f"Profile to start from.  [default: {DEFAULT}]")
@click.option("--model", metavar="ID", help="Model, on the hub or a folder, not the profile's.")
@click.option("--data", metavar="ID", help="Data, on the hub or a folder, not the profile's.")
@click.option("--heldout", metavar="FILE", help="Rows to score on, not the profile's benchmarks.")
@click.option("--demo", is_flag=True, help="The demo: a tiny model and its data, on a laptop.")
@click.option("--list", "lists", is_flag=True, help="List the profiles, and end.")
def init(
    folder: Path | None,
    profile: str | None,
    model: str | None,
    data: str | None,
    heldout: str | None,
    demo: bool,
    lists: bool,
) -> None:
    """Start a project in DIR: a pipeline that `dvc repro` runs.

    DIR gets dvc.yaml, params.yaml and a readme, and is made a git repository where it lies in none.
    """
    if lists:
        print_blocks(profiles_table(), "~: a forecast of `interlace plan-run`, not timed")
        return
    if folder is None:
        raise InputError("init: no folder; name one, as in `interlace init DIR`")
    if demo and (profile or model or data or heldout):
        raise InputError(
            "--demo has a model and data of its own; leave --profile, --model, --data, --heldout"
        )
    check_programs()
    start = read_profile(DEMO if demo else profile or DEFAULT)
    model, data = _source("--model", model, folder), _source("--data", data, folder)
    heldout = _source("--heldout", heldout, folder, on_hub=False)
    files = project_files(folder.resolve().name, start, model, data, heldout)
    check_folder(folder, files)
    start_project(folder, files)
    say(f"{folder}: a project by the profile {start.name}; run `dvc repro` in it")
    if data and start.params.probes.per_task:
        say(
            f"{folder / 'params.yaml'}: probes.math_sources and probes.nonmath_sources are those of"
            f" {start.params.data.id}; name sources of {data}"
        )


def _source(option: str, value: str | None, folder: Path, *, on_hub: bool = True) -> str | None:
    """Return an id of the hub as it is; a path as the project sees it.

    Args:
        option: to name in messages.
        value: an id, a path, or `None`.
        folder: of the project.
        on_hub: what is no path may be an id.

    Raises:
        InputError: a path leads nowhere.
    """
    if value is None:
        return None
    if not value.strip():
        choices = "an id on the hub, or a path" if on_hub else "a file"
        raise InputError(f"{option} = {value!r}: names nothing; name {choices}")
    path = Path(value).expanduser()
    if not path.exists():
        if not on_hub or value.startswith((".", "/", "~")):
            raise InputError(f"{option} = {value!r}: no such file or folder")
        return value
    path, root = path.resolve(), folder.resolve()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def profiles_table() -> PlainTable:
    """Return all profiles, with the model, the ratio, the GPUs and the hours of each."""
    table = PlainTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("profile", "model", "ratio", "GPUs", "hours"):
        table.add_column(heading, no_wrap=True)
    for profile in map(read_profile, profile_names()):
        params = profile.params
        table.add_row(profile.name, _model(profile), str(params.ratio), profile.gpus, profile.hours)
    return table


def _model(profile: Profile) -> str:
    if profile.name == DEMO:
        return "tiny Qwen3-VL"
    name = profile.params.model.id.rpartition("/")[2]
    return "--model, --data" if profile.comes_without_model else name


@click.command("upgrade")
@click.option("--write", is_flag=True, help="Write it, with your own changes kept.")
def upgrade(write: bool) -> None:
    """Say what differs between dvc.yaml and the installed package's, since `interlace init`."""
    lines, files = upgraded(Path())
    for line in lines:
        say(line)
    if write:
        files.write()
        say("upgrade: wrote dvc.yaml")


@click.command("scratch")
@click.option("--clear", is_flag=True, help="Remove unfinished work and caches.")
@click.option("--replies", is_flag=True, help="With --clear, also remove replies of servers.")
def scratch(clear: bool, replies: bool) -> None:
    """Show the size of .scratch: unfinished work, from which stages resume, and caches.

    --clear spares what a running stage uses, and replies of servers, which may have been paid for.
    """
    root = scratch_root()
    if replies and not clear:
        raise InputError("--replies: only with --clear; `interlace scratch` alone shows all sizes")
    if not root.is_dir():
        say(f"{root}: no such folder: nothing is unfinished here")
        return
    if clear:
        for entry in clear_scratch(root, replies=replies):
            say(f"{root / entry.name}: removed {disk_size(entry.size)}")
    entries = scratch_entries(root)
    print_blocks(scratch_table(root, entries))


def scratch_table(root: Path, entries: list[ScratchEntry]) -> PlainTable:
    """Return the folders of scratch with their sizes, what they hold, and who uses them."""
    table = PlainTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(str(root), no_wrap=True)
    table.add_column(disk_size(sum(entry.size for entry in entries)), justify="right", no_wrap=True)
    table.add_column("")
    for entry in entries:
        used = "".join(f"; in use: {holder}" for holder in entry.holders)
        table.add_row(entry.name, disk_size(entry.size), f"{_content(entry.name)}{used}")
    return table


def _content(name: str) -> str:
    if name in WORK:
        return "unfinished work"
    if name in CACHES:
        return "cache"
    return "replies of servers" if name in REPLIES else "not the pipeline's: remove it by hand"


def disk_size(size: int) -> str:
    """Format a number of bytes: 1.2 GB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 1e3:.0f} kB"
