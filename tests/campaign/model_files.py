"""Changes of the model's files: config.json, the index, safetensors, processor and tokenizer."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaign.damage import BYTES, HALVES, PLACES, harm, harm_json

MODEL, WEIGHTS, INDEX = "source/model", "model.safetensors", "model.safetensors.index.json"
CONFIG_WAYS = (("value", 60), ("bytes", 10), ("place", 3))
INDEX_WAYS = (("value", 16), ("file name", 16), ("bytes", 8), ("place", 2))
WEIGHT_WAYS = (("header", 40), ("bytes", 20), ("place", 4))
PROCESSOR_WAYS = (("value", 25), ("bytes", 20), ("place", 6))
PROCESSOR_FILES = (
    *("processor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    "generation_config.json",
)


def _harm_bytes(path: Path, way: str, rng: random.Random) -> dict[str, Any]:
    how = rng.choice(sorted(BYTES) if way == "bytes" else PLACES)
    harm(path, how, rng)
    note = f"{path.name}: {how}"
    return {"note": note, "damage": how in HALVES, "names": [path.name, MODEL]}


def change_config(folder: Path, way: str, rng: random.Random) -> dict[str, Any]:
    """Change config.json."""
    path = folder / MODEL / "config.json"
    if way != "value":
        return _harm_bytes(path, way, rng)
    note = harm_json(path, rng)
    return {"note": note, "names": ["config.json", MODEL]}


def change_processor(folder: Path, way: str, rng: random.Random) -> dict[str, Any]:
    """Change a file of the processor or the tokenizer."""
    path = folder / MODEL / rng.choice(PROCESSOR_FILES)
    if way != "value":
        return _harm_bytes(path, way, rng)
    path = folder / MODEL / rng.choice([name for name in PROCESSOR_FILES if name[-1] == "n"])
    note = harm_json(path, rng)
    return {"note": f"{path.name}: {note}", "names": [path.name, MODEL]}


def parsed(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and its tensors' bytes."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def packed(header: Any, body: bytes) -> bytes:
    """The file of a header and bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def split_into_shards(folder: Path) -> dict[str, Any]:
    """Write the weights as two files with an index; return the index."""
    model = folder / MODEL
    header, body = parsed((model / WEIGHTS).read_bytes())
    header.pop("__metadata__", None)
    names, places = sorted(header), {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        head: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        data = b""
        for name in part:
            begin, end = header[name]["data_offsets"]
            head[name] = header[name] | {"data_offsets": [len(data), len(data) + end - begin]}
            data += body[begin:end]
            places[name] = f"model-{number:05d}-of-00002.safetensors"
        text = json.dumps(head).encode()
        text += b" " * (-len(text) % 8)
        (model / f"model-{number:05d}-of-00002.safetensors").write_bytes(packed(text, data))
    (model / WEIGHTS).unlink()
    return {"metadata": {"total_size": len(body)}, "weight_map": places}


def _file_name(model: Path, places: dict[str, str], name: str, rng: random.Random) -> str:
    """Name a shard in another way, often with the file put there."""
    old = places[name]
    way = rng.choice(["subfolder", "outside", "absolute", "missing", "folder", "other", "link"])
    new = {
        "subfolder": f"sub/{old}",
        "outside": f"../{old}",
        "absolute": str(model / old),
        "missing": "model-00003-of-00002.safetensors",
        "folder": "sub",
        "other": next(file for file in sorted(set(places.values())) if file != old),
        "link": "linked.safetensors",
    }[way]
    (model / "sub").mkdir()
    if way in ("subfolder", "outside"):
        os.replace(model / old, model / new)
    if way == "link":
        os.replace(model / old, model.parent / "elsewhere.safetensors")
        (model / new).symlink_to("../elsewhere.safetensors")
    only_one = way in ("other", "missing", "folder") and rng.random() < 0.5
    for key in [name] if only_one else [key for key in places if places[key] == old]:
        places[key] = new
    return way


def change_index(folder: Path, way: str, rng: random.Random) -> dict[str, Any]:
    """Split the weights, then change the index."""
    model, index = folder / MODEL, split_into_shards(folder)
    path = model / INDEX
    path.write_text(json.dumps(index))
    facts: dict[str, Any] = {"names": [INDEX, MODEL, "weight_map", "model-0000"]}
    if way == "file name":
        places = index["weight_map"]
        facts["note"] = _file_name(model, places, rng.choice(sorted(places)), rng)
        path.write_text(json.dumps(index))
    elif way == "value":
        facts["note"] = harm_json(path, rng)
    else:
        return _harm_bytes(path, way, rng) | {"names": facts["names"]}
    facts["weights"] = _named_files
    return facts


def _named_files(folder: Path) -> list[Path]:
    """The files that the index names."""
    try:
        index = json.loads((folder / MODEL / INDEX).read_text())
        files = {folder / MODEL / name for name in index["weight_map"].values()}
    except (ValueError, KeyError, AttributeError, TypeError, OSError):
        return []
    return sorted(file for file in files if file.is_file())


HEADERS: dict[str, Callable[[dict[str, Any], str, random.Random], Any]] = {
    "type": lambda head, name, rng: rng.choice(["F8_E4M3", "F16", "I64", "BOOL", "XX", 3, None]),
    "shape": lambda head, name, rng: rng.choice(
        [[], [-1, 4], [2**40, 2**40], "4x4", None, [1.5], head[name]["shape"] + [1], [0]]
    ),
    "data_offsets": lambda head, name, rng: rng.choice(
        [[0, 0], [0, 2**50], [4, 0], [-8, 8], "0", None, [0], [0.5, 8], [1, 9]]
    ),
    "entry": lambda head, name, rng: rng.choice([None, [], 3, {}, "x", {"dtype": "F32"}]),
    "rename": lambda head, name, rng: f"{name}x",
    "prefix": lambda head, name, rng: f"module.{name}",
    "delete": lambda head, name, rng: None,
    "extra": lambda head, name, rng: None,
    "metadata": lambda head, name, rng: rng.choice([None, [], {"format": 3}, {"format": "tf"}, {}]),
    "all": lambda head, name, rng: rng.choice([{}, [], None, 3, "x"]),
    "size": lambda head, name, rng: rng.choice([0, 1, 2**63, 10**9, 7]),
}


def change_weights(folder: Path, way: str, rng: random.Random) -> dict[str, Any]:
    """Change the file of weights: its header, its bytes, or what stands in its place."""
    path = folder / MODEL / WEIGHTS
    names = [WEIGHTS, MODEL]
    if way == "place" and rng.random() < 0.4:
        path.unlink()
        os.mkfifo(path)
        return {"names": names, "note": "a pipe", "damage": True}
    if way != "header":
        return _harm_bytes(path, way, rng)
    data = path.read_bytes()
    header, body = parsed(data)
    name = rng.choice([key for key in header if key != "__metadata__"])
    what = rng.choice(sorted(HEADERS))
    value: Any = HEADERS[what](header, name, rng)
    if what in ("type", "shape", "data_offsets"):
        header[name] |= {{"type": "dtype"}.get(what, what): value}
    elif what in ("rename", "prefix"):
        header[value] = header.pop(name)
    elif what == "delete":
        del header[name]
    elif what == "extra":
        header["extra.weight"] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    elif what == "metadata":
        header["__metadata__"] = value
    elif what == "entry":
        header[name] = value
    elif what == "all":
        header = value
    path.write_bytes(
        int(value).to_bytes(8, "little") + data[8:] if what == "size" else packed(header, body)
    )
    return {"names": [*names, name], "note": f"{what} of {name} = {value}"[:120]}
