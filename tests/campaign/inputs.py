"""Mutated inputs: params.yaml, the model's files, rows and images; then all stages, as dvc does."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from campaign import images, model_files, params_file, rows
from campaign.bench import Bench
from campaign.outcomes import Evidence, Run, Try
from campaign.project import CHAIN, ROOT, outputs_of

Change = Callable[[Path, str, random.Random], dict[str, Any]]
SOURCES: dict[str, tuple[Change, tuple[tuple[str, int], ...]]] = {
    "params.yaml": (params_file.change, params_file.WAYS),
    "config.json": (model_files.change_config, model_files.CONFIG_WAYS),
    "index": (model_files.change_index, model_files.INDEX_WAYS),
    "safetensors": (model_files.change_weights, model_files.WEIGHT_WAYS),
    "processor": (model_files.change_processor, model_files.PROCESSOR_WAYS),
    "Parquet": (rows.change, rows.WAYS),
    "images": (images.change, images.WAYS),
}
KINDS = tuple(SOURCES)
BASE = "plain"
PATIENCE = 60.0
_DEFINITIONS = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def tries(kind: str, seed: int) -> list[Try]:
    """All changes of one kind; each number is a random draw of its own."""
    listed = []
    for way, count in SOURCES[kind][1]:
        listed += [Try(kind, way, str(1000 * seed + number)) for number in range(count)]
    return listed


def perform(bench: Bench, one: Try) -> Evidence:
    """Change an input, run `pin`, then each stage whose inputs differ, as dvc does."""
    change = SOURCES[one.kind][0]
    with bench.workspace(BASE) as folder:
        facts = change(folder, one.target, random.Random(one.name))
        seen = Evidence(names=facts.get("names", ()), damage=facts.get("damage", False))
        seen.note = facts.get("note", "")
        base = bench.base(BASE)
        for name in CHAIN:
            if name != "pin" and key_of(folder, name) == key_of(base, name):
                continue
            run = bench.stage(folder, name, limit=facts.get("patience", PATIENCE))
            seen.harmed.append(run)
            if run.code is None and "patience" in facts:
                seen.harmed.pop()  # it works as long as it was asked to
                seen.same, seen.recorded = False, True
                return seen
            if run.code:
                return seen
            if name == "pin":
                seen.recorded = records(folder) != records(base)
                if unseen := facts.get("unseen", lambda folder: "")(folder):
                    return _silent(seen, f"{seen.note}: {unseen}")
                if "weights" in facts and not _notes_weights(bench, folder, facts["weights"]):
                    return _silent(
                        seen, f"{seen.note}: changed weights leave no trace in dense.json"
                    )
        names = [name for name in CHAIN if name != "pin"]
        if "images" in one.kind and (unseen := facts["after"](folder)):
            return _silent(seen, f"{seen.note}: {unseen}")
        seen.same = outputs_of(folder, names) == outputs_of(base, names)
        return seen


def _silent(seen: Evidence, note: str) -> Evidence:
    seen.same, seen.damage, seen.note = False, True, note
    return seen


def records(folder: Path) -> list[Any]:
    """What `pin` wrote down of the inputs."""
    files = ("sources", "dense", "params")
    texts: list[Any] = [(folder / f"artifacts/{name}.json").read_text() for name in files]
    params = yaml.safe_load((folder / "params.yaml").read_bytes()) or {}
    return [*texts, params.get("ratio"), params.get("method"), params.get("launch")]


def _notes_weights(bench: Bench, folder: Path, files: Callable[[Path], list[Path]]) -> bool:
    """Change a byte in each file of weights in turn; see that `pin` writes down something else."""
    for path in files(folder):
        before, data = (folder / "artifacts/dense.json").read_bytes(), path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        run: Run = bench.stage(folder, "pin")
        noticed = run.code != 0 or (folder / "artifacts/dense.json").read_bytes() != before
        path.write_bytes(data)
        bench.stage(folder, "pin")
        if not noticed:
            return False
    return True


def key_of(folder: Path, name: str) -> str:
    """Digest what a stage depends on by dvc.yaml."""
    stage, _, item = name.partition("@")
    fields = _DEFINITIONS[stage]
    text = json.dumps(fields.get("do", fields))
    if item:
        text = text.replace("${item}", fields["foreach"][item])
    values, digest = json.loads(text), hashlib.sha256()
    for path in (folder / dep for dep in values.get("deps", ())):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(file.relative_to(folder).as_posix().encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    for entry in values.get("params", ()):
        if isinstance(entry, str):
            params = yaml.safe_load((folder / "params.yaml").read_bytes())
            digest.update(repr(params.get(entry)).encode())
            continue
        for file_name, keys in entry.items():
            content = json.loads((folder / file_name).read_text())
            digest.update(json.dumps([content.get(key) for key in keys]).encode())
    return digest.hexdigest()
