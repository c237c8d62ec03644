"""Changes of params.yaml: odd values in every field, and damage to the file."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import yaml
from campaign.damage import BYTES, HALVES, PLACES, harm

from interlace.params.section import leaf_names
from interlace.params.whole import Params
from interlace.system.documents import read_yaml

RAW = (  # as they stand in the file
    *("", "~", "''", "abc", "-1", "0", "1", "2", "0.5", "1e-3", "1e400", ".inf", "-.inf", ".nan"),
    *("true", "no", "off", "[]", "{}", "[1, 2]", "{a: 1}", "010", "0x10", "0b11", "0o17", "1_000"),
    *("1:30", "2001-01-01", "'1'", "1.0", "9223372036854775808", "-0.0", "!!binary aGk=", "1e3"),
    *("!!python/object:os.system x", "*x", "&a 3", '"\\u0000"', "'[b]x[/b]'", "'../x'", "/", "🙂"),
    *("!!set {a}", "|\n    text", "@x", "%x", "x" * 300, "1099511627776", ".5", "1.", "+1", "yes"),
)
TEXTS = {
    "duplicate key": lambda text: text + "\nseed: 1\n",
    "tabs": lambda text: text.replace("  ", "\t"),
    "byte order mark": lambda text: "\ufeff" + text,
    "line ends": lambda text: text.replace("\n", "\r\n"),
    "two documents": lambda text: text + "\n---\nseed: 1\n",
    "a list": lambda text: "- " + text.replace("\n", "\n  "),
    "a number": lambda text: "7\n",
    "unknown section": lambda text: text + "\nextra: {a: 1}\n",
    "deep": lambda text: text + "\nextra: " + "[" * 5000 + "]" * 5000 + "\n",
    "alias bomb": lambda text: text + bomb(),
    "misspelt key": lambda text: text.replace("max_steps", "max_stepz"),
    "old name": lambda text: text + "\ncollect: {batch_tokens: 4096}\n",
    "tag": lambda text: "!!python/dict\n" + text,
    "comment only": lambda text: "# nothing\n",
    "control characters": lambda text: text + "\nmethod: \x07\n",
}
WAYS = (("value", 130), ("text", len(TEXTS)), ("bytes", 16), ("place", 3))
LONG = 1000  # a larger count may be meant, and takes long


def bomb() -> str:
    """Nine anchors, each of nine of the last one."""
    lines = ["\na0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    return "\n".join(lines) + "\n"


def change(folder: Path, way: str, rng: random.Random) -> dict[str, Any]:
    """Change params.yaml; return what a clear line names, and how to judge what is accepted."""
    path = folder / "params.yaml"
    facts: dict[str, Any] = {"names": ["params.yaml"], "unseen": _dialects}
    if way == "value":
        key, raw = rng.choice(leaf_names(Params)), rng.choice(RAW)
        path.write_text(with_value(path.read_text(), key, raw), encoding="utf-8")
        last = key.rpartition(".")[2]
        facts |= {"names": ["params.yaml", last, key], "note": f"{key}: {raw[:40]}"}
        if _is_large(raw):
            facts["patience"] = 15.0
    elif way == "text":
        name = sorted(TEXTS)[int(rng.random() * len(TEXTS))]
        path.write_text(TEXTS[name](path.read_text()), encoding="utf-8")
        facts["note"] = name
    else:
        how = rng.choice(sorted(BYTES) if way == "bytes" else PLACES)
        harm(path, how, rng)
        facts |= {"note": how, "damage": how in HALVES, "patience": 30.0}
    return facts


def with_value(text: str, key: str, raw: str) -> str:
    """Set one field to characters as they stand."""
    params = yaml.safe_load(text)
    section = params
    *outer, last = key.split(".")
    for name in outer:
        if not isinstance(section.get(name), dict):
            section[name] = {}
        section = section[name]
    section[last] = "PLACEHOLDER"
    return yaml.safe_dump(params, sort_keys=False).replace("PLACEHOLDER", raw)


def _is_large(raw: str) -> bool:
    try:
        return abs(float(raw)) >= LONG
    except ValueError:
        return False


def _dialects(folder: Path) -> str:
    """Compare the stages' reading of the file with DVC's."""
    from dvc.utils.serialize import load_yaml

    ours, dvcs = read_yaml(folder / "params.yaml"), load_yaml(str(folder / "params.yaml"))
    if ours == dvcs or repr(ours) == repr(dvcs):
        return ""
    return "dvc reads other values"
