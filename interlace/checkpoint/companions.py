"""The files that go along with a checkpoint's weights: processor, tokenizer, licence, code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from interlace.errors import InputError
from interlace.model.files import CONFIG, check_file, read_object

TEMPLATES = "additional_chat_templates"  # a folder
SMALL_FILES = (  # of a repository: all but weights
    *("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.bpe", "*.spm", "*.py"),
)
PROCESSORS = ("processor_config.json", "preprocessor_config.json")  # one of them has to be there
TOKENIZERS = ("tokenizer_config.json",)  # in their place, for families without images
_NAMES = re.compile(  # of all families' processors, tokenizers and generation
    r"generation_config\.json"
    r"|((pre|image_|video_pre|video_|audio_)?processor|feature_extractor|audio_tokenizer)"
    r"_config\.json"
    r"|chat_template(_[\w-]+)?\.(jinja|json)"
    r"|tokenizer(\.[\w.-]+)?\.json|tokenizer_config\.json|tekken\.json"
    r"|(special_tokens_map|added_tokens)\.json"
    r"|vocab(\.[\w-]+)?\.(json|txt)|merges\.txt"
    r"|[\w.-]*\.(model|tiktoken|bpe|spm)(\.v\d+\w*)?"  # sentencepiece and tiktoken
    r"|(LICEN[CS]E|COPYING|NOTICE|USE_POLICY)([._-].*)?",
    re.IGNORECASE,
)


def companions(folder: Path, *, trust_remote_code: bool) -> list[Path]:
    """Return the files to copy beside other weights of the same model, by name.

    Files that describe the dense model's weights or its training are not among them.

    Args:
        folder: the checkpoint.
        trust_remote_code: include the model's own code, where the configuration names it.

    Raises:
        InputError: one of them is not there, no file, or lies elsewhere; or code lies in another
            repository.
    """
    files = [path for path in folder.iterdir() if _NAMES.fullmatch(path.name)]
    if (folder / TEMPLATES).is_dir():
        files += (folder / TEMPLATES).glob("*.jinja")
    if trust_remote_code:
        files += code_files(folder)
    for path in files:
        check_file(folder, path)
    return sorted(files)


def files_read(
    folder: Path, weights: list[Path], *, with_images: bool, trust_remote_code: bool
) -> list[Path]:
    """Return all files of a checkpoint whose contents may matter, checked.

    They are its weights, its companions, and whatever else lies beside them, since a processor may
    read files of any name.

    Args:
        folder: the checkpoint.
        weights: its files of weights.
        with_images: the family takes images, and so needs a processor beside the tokenizer.
        trust_remote_code: include the model's own code.

    Raises:
        InputError: as `companions` does, or there is no processor, or no tokenizer.
    """
    stock_files = {
        folder / CONFIG,
        *weights,
        *companions(folder, trust_remote_code=trust_remote_code),
    }
    needed, owner = (PROCESSORS, "processor") if with_images else (TOKENIZERS, "tokenizer")
    if not stock_files & {folder / name for name in needed}:
        raise InputError(f"{folder}: no {needed[0]}; copy the {owner}'s files there too")
    check_file(folder, folder / CONFIG)
    return sorted(stock_files | set(_others(folder, trust_remote_code)))


def _others(folder: Path, trust_remote_code: bool) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir() or path.name.startswith("."):
            continue
        try:
            check_file(folder, path)
        except InputError:
            if trust_remote_code:
                raise  # the model's own code may read it
            continue
        yield path


def code_files(folder: Path) -> set[Path]:
    """Return the model's own Python files: those that `auto_map` names, and what they import.

    A `custom_generate` folder belongs to them.

    Raises:
        InputError: code of another repository is named, which nothing hashes; or a file is not
            there.
    """
    modules: list[str] = []
    for path in [*sorted(folder.glob("*_config.json")), folder / CONFIG]:
        for reference in _references(read_object(path).get("auto_map")):
            if "--" in reference:
                raise InputError(
                    f"{path}: auto_map names code of another repository, {reference}; copy its"
                    " files beside, and remove what precedes the module's name"
                )
            modules.append(reference.partition(".")[0])
    files = set((folder / "custom_generate").glob("*.*"))  # transformers runs it when it generates
    while modules:
        path = folder / f"{modules.pop()}.py"
        if path not in files:
            check_file(folder, path)
            files.add(path)
            modules += _relative_imports(path)
    return files


def _references(auto_map: Any) -> Iterator[str]:
    """Yield the references to classes, such as `modeling_x.XModel`, among values and lists."""
    if isinstance(auto_map, str):
        yield auto_map
    elif isinstance(auto_map, dict | list):
        for value in auto_map.values() if isinstance(auto_map, dict) else auto_map:
            yield from _references(value)


def _relative_imports(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable Python: {error}; copy it again") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            yield from [node.module] if node.module else [alias.name for alias in node.names]
