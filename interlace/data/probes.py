"""Domain probes: pair math and other instructions with images of training rows.

The tasks are data (`data/probes.yaml`); the method is that of arXiv 2603.20275, section 3. Rows are
drawn in one shuffled order, so that more probes per task contain every smaller number.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow.compute as pc
from pydantic import Field, field_validator

from interlace.errors import InputError
from interlace.params.inputs import Probes
from interlace.params.section import Section, validated
from interlace.samples import rows as samples
from interlace.samples.order import shuffle_key
from interlace.samples.parquet import file_tables
from interlace.sources.pin import pin_data
from interlace.sources.pinned import PinnedData
from interlace.system.documents import read_yaml

Domain = Literal["math", "nonmath"]
DOMAINS: tuple[Domain, ...] = get_args(Domain)
QUESTION = "{question}"  # stands for the row's first user text
_PLACEHOLDER = re.compile(r"\{\s*\w*\s*\}")
_IMAGE_PATHS = "images.list.element.path"  # tells how many images a row has, without their bytes


class ProbeTask(Section):
    """An instruction of a domain."""

    task: str = Field(description="name")
    domain: Domain = Field(description="math or nonmath")
    prompt: str = Field(description="instruction; may hold {question}")

    @field_validator("task", "prompt")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be empty")
        return value.strip()

    @field_validator("prompt")
    @classmethod
    def _known_placeholders(cls, value: str) -> str:
        unknown = sorted(set(_PLACEHOLDER.findall(value)) - {QUESTION})
        if unknown:
            raise ValueError(f"unknown placeholder {unknown[0]}; {QUESTION} is the only one")
        return value


def read_tasks(path: Path) -> tuple[ProbeTask, ...]:
    """Read and check a file of tasks.

    Raises:
        InputError: no such file, not YAML, or a task that breaks the schema.
    """
    tasks = []
    for number, values in enumerate(_read_list(path), 1):
        name = values.get("task") if isinstance(values, dict) else None
        label = f"task {name!r}" if isinstance(name, str) and name.strip() else f"task {number}"
        tasks.append(validated(ProbeTask, values, f"{path}: {label}"))
    for earlier, task in combinations(tasks, 2):
        if task.task == earlier.task:
            raise InputError(f"{path}: task {task.task!r} appears twice; rename one")
        if task.prompt == earlier.prompt:
            raise InputError(
                f"{path}: tasks {earlier.task!r} and {task.task!r} have the same prompt; change or"
                " remove one"
            )
    for domain in DOMAINS:
        if domain not in {task.domain for task in tasks}:
            raise InputError(f"{path}: no task of domain {domain}; each domain needs at least one")
    return tuple(tasks)


def _read_list(path: Path) -> list[Any]:
    values = read_yaml(path, "correct probes.prompts, or set probes.per_task to 0")
    if not isinstance(values, list):
        raise InputError(
            f"{path}: expected a list of tasks (task, domain, prompt), found"
            f" {type(values).__name__}"
        )
    return values


def tasks_to_ask(probes: Probes) -> tuple[ProbeTask, ...]:
    """Return the tasks in `probes.prompts`; none if `per_task` is 0.

    Raises:
        InputError: as `read_tasks`, or a domain has no sources or shares one with the other.
    """
    if not probes.per_task:
        return ()
    for domain in DOMAINS:
        if not sources_of(probes, domain):
            raise InputError(
                f"probes.{domain}_sources is empty, and probes.per_task = {probes.per_task}: name"
                " sources of the training set, or set probes.per_task to 0"
            )
    if both := sorted(set(probes.math_sources) & set(probes.nonmath_sources)):
        raise InputError(
            f"probes.math_sources and probes.nonmath_sources overlap: {both[0]!r} is in both;"
            " remove it from one"
        )
    return read_tasks(Path(probes.prompts))


def pin_prompts(probes: Probes, hashes: Path) -> PinnedData | None:
    """Check the tasks and pin the file that lists them; None where `per_task` is 0.

    Args:
        probes: what is asked for.
        hashes: file that remembers hashes of unchanged files.

    Raises:
        InputError: as `tasks_to_ask` does.
    """
    if not tasks_to_ask(probes):
        return None
    return pin_data(probes.prompts, None, field="probes.prompts", hashes=hashes)


def sources_of(probes: Probes, domain: Domain) -> tuple[str, ...]:
    """Return the sources whose images a domain's tasks are about."""
    return probes.math_sources if domain == "math" else probes.nonmath_sources


def write_probes(
    train: Path, out: Path, tasks: Sequence[ProbeTask], *, probes: Probes, seed: int
) -> int:
    """Pair every task with the images of drawn training rows.

    Args:
        train: folder of training rows that `sample` wrote.
        out: folder to write; without tasks it holds one file without rows.
        tasks: as `tasks_to_ask` returns them.
        probes: sources and number of rows.
        seed: of the draw.

    Returns:
        The number of probes.

    Raises:
        InputError: a source that the training set does not have, or too few rows with images.
    """
    domains: dict[Path, dict[int, Domain]] = {}
    for domain in DOMAINS if tasks else ():
        for path, number in _draw_rows(train, domain, probes, seed):
            domains.setdefault(path, {})[number] = domain
    return len(samples.write_rows(_probes(domains, tasks), out))


def _draw_rows(train: Path, domain: Domain, probes: Probes, seed: int) -> list[tuple[Path, int]]:
    """Draw a domain's rows with images, lowest shuffle keys first; returns file and number."""
    sources, field = sources_of(probes, domain), f"probes.{domain}_sources"
    rows: Counter[str] = Counter()

    def keyed_rows() -> Iterator[tuple[bytes, Path, int]]:
        for path, number, sample_id, source, has_image in _row_facts(train):
            rows[source] += 1
            if source in sources and has_image:
                yield shuffle_key(seed, "probes", sample_id), path, number

    first_rows = heapq.nsmallest(probes.per_task, keyed_rows())
    if unknown := [source for source in sources if not rows[source]]:
        raise unknown_source(domain, unknown[0], "the training set", +rows)
    if (count := len(first_rows)) < probes.per_task:
        raise InputError(
            f"probes.per_task = {probes.per_task}: only {count} training rows of {field}"
            f" ({', '.join(sources)}) have images; lower it to {count}, name more sources or"
            " raise data.fraction"
        )
    return [(path, number) for _, path, number in first_rows]


def unknown_source(domain: Domain, source: str, data: str, sources: Iterable[str]) -> InputError:
    """Return the error that data have no rows of a source, with those that they have."""
    names = sorted(sources)
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return InputError(
        f"probes.{domain}_sources: {data} has no rows of {source!r}; name some of {listed}, or set"
        " probes.per_task to 0, with a method that needs no probes"
    )


def _row_facts(folder: Path) -> Iterator[tuple[Path, int, str, str, bool]]:
    """Yield file, number, id, source and presence of images of every row; reads no image."""
    columns = ["sample_id", "source", _IMAGE_PATHS]
    for path in sorted(folder.glob("*.parquet")):
        number = 0
        for batch in file_tables(path, columns):
            counts = pc.fill_null(pc.list_value_length(batch["images"]), 0)
            values = (
                column.to_pylist() for column in (batch["sample_id"], batch["source"], counts)
            )
            for sample_id, source, images in zip(*values, strict=True):
                yield path, number, sample_id, source, images > 0
                number += 1


def _probes(
    domains: dict[Path, dict[int, Domain]], tasks: Sequence[ProbeTask]
) -> Iterator[dict[str, Any]]:
    for path, domain_of in sorted(domains.items()):
        for number, row in samples.selected_rows(str(path), path, domain_of):
            for task in tasks:
                if task.domain == domain_of[number]:
                    yield probe(row, task)


def probe(row: dict[str, Any], task: ProbeTask) -> dict[str, Any]:
    """Pair a task with the images of a row; the answer is empty."""
    prompt = task.prompt.replace(QUESTION, row["texts"][0]["user"])
    fields = {
        "images": row["images"],
        "texts": [{"user": prompt, "assistant": ""}],
        "source": row["source"],
        "domain": task.domain,
        "task": task.task,
    }
    return fields | {"sample_id": samples.sample_id(fields)}
