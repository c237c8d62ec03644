"""The upgrade of a project's dvc.yaml: the package's changes, joined with the user's own."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from interlace.errors import InputError
from interlace.project.layout import BASE, PIPELINE, pipeline_text
from interlace.system.documents import parse_yaml
from interlace.system.outputs import whole

Key = tuple[str, ...]  # the way to a value: ("stages", "collect", "deps")
_NOTHING: Any = object()  # where a document has no such key


@dataclass
class PipelineChanges:
    """The package's changes of a pipeline and the user's own, key by key.

    Attributes:
        package: keys that the package changed and the user did not, with the new value.
        user: keys that the user changed.
        conflicts: keys that both changed, in ways that cannot be joined.
    """

    package: dict[Key, Any] = field(default_factory=dict)
    user: list[Key] = field(default_factory=list)
    conflicts: list[Key] = field(default_factory=list)


def compare(base: dict[str, Any], current: dict[str, Any], new: dict[str, Any]) -> PipelineChanges:
    """Compare three versions of a pipeline.

    Args:
        base: as the package wrote it when the project began, or was upgraded last.
        current: as the user has it.
        new: as the installed package has it.
    """
    versions = [dict(_leaves(document)) for document in (base, current, new)]
    result = PipelineChanges()
    for key in dict.fromkeys(key for version in versions for key in version):
        old, user, package = (version.get(key, _NOTHING) for version in versions)
        if user != old and user != package:
            result.user.append(key)
        if package == old or user == package:
            continue
        if user == old:
            result.package[key] = package
        elif (
            all(isinstance(value, list) for value in (old, user, package))
            and (union := _union(old, user, package)) is not None
        ):
            result.package[key] = union
        else:
            result.conflicts.append(key)
    ends = {key[1] for key, value in result.package.items() if _ends_stage(key, value)}
    result.conflicts += [
        key
        for key in result.user
        if key[0] == "stages" and key[1] in ends and key not in result.conflicts
    ]
    return result


def _ends_stage(key: Key, value: Any) -> bool:
    """Tell if a change takes a stage's command away, and so the stage."""
    return key[0] == "stages" and key[-1] == "cmd" and value is _NOTHING


def _leaves(document: dict[str, Any], above: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Yield the values of a document that are no mappings, and empty ones within others."""
    for name, value in document.items():
        if isinstance(value, dict) and (value or not above):
            yield from _leaves(value, (*above, str(name)))
        else:
            yield (*above, str(name)), value


def _union(old: list[Any], user: list[Any], new: list[Any]) -> list[Any] | None:
    """Join two changed lists; None where both changed the same entry."""
    items = [item for item in new if item in user or item not in old]
    items += [item for item in user if item not in old and item not in new]
    names = [item if isinstance(item, str) else next(iter(item), "") for item in items]
    return items if len(names) == len(set(names)) else None


@dataclass
class Upgrade:
    """New contents of dvc.yaml and of the package's version that it was made from.

    Attributes:
        root: the project's folder.
        refusal: why they cannot be written; None where they can.
        text: of dvc.yaml.
    """

    root: Path
    refusal: str | None
    text: str

    def write(self) -> None:
        """Write both.

        Raises:
            InputError: the user's own changes cannot be told or kept.
        """
        if self.refusal:
            raise InputError(self.refusal)
        for path, text in ((PIPELINE, self.text), (BASE, pipeline_text())):
            with whole(self.root / path) as partial:
                partial.write_text(text, encoding="utf-8")


def upgraded(root: Path) -> tuple[list[str], Upgrade]:
    """Compare a project's dvc.yaml with the installed package's.

    Returns:
        Lines that say what differs, and the new version to write.

    Raises:
        InputError: there is no dvc.yaml, or it is not one.
    """
    package_text = pipeline_text()
    user_text = _text(root / PIPELINE)
    user, package = (_document(text, PIPELINE) for text in (user_text, package_text))
    has_base = (root / BASE).exists()
    base = _document(_text(root / BASE), BASE) if has_base else user
    comparison = compare(base, user, package)
    lines = list(_lines(comparison, base, package))
    if not comparison.package and not comparison.conflicts:
        lines.append("dvc.yaml: up to date with the installed package")
    refusal = None
    if not has_base and user != package:
        refusal = (
            f"{BASE}: no such file, so that your own changes of dvc.yaml cannot be told from those"
            " of the package; move dvc.yaml away, and run `interlace init` in a new folder"
        )
    if comparison.conflicts:
        names = ", ".join(".".join(key[1:] or key) for key in comparison.conflicts)
        refusal = f"dvc.yaml: {names}: changed by you and by the package; join them by hand"
    text = package_text if user == base else _changed(user_text, comparison.package, package_text)
    return lines, Upgrade(root, refusal, text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; run it in a project, or `interlace init`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable text file ({error})") from None


def _document(text: str, path: Path) -> dict[str, Any]:
    document = parse_yaml(text, str(path))
    if not isinstance(document, dict) or not isinstance(document.get("stages"), dict):
        raise InputError(f"{path}: holds no stages; restore it from git, or start a new project")
    return document


def _lines(
    comparison: PipelineChanges, base: dict[str, Any], package: dict[str, Any]
) -> Iterator[str]:
    """Say what differs: whole stages first, then keys."""
    old, new = base["stages"].keys(), package["stages"].keys()
    yield from (f"+ {name}: a new stage" for name in package["stages"] if name not in old)
    yield from (f"- {name}: the stage is gone" for name in base["stages"] if name not in new)
    old_values = dict(_leaves(base))
    for key, value in comparison.package.items():
        if key[0] != "stages" or (key[1] in old and key[1] in new):
            yield f"~ {_label(key)}: {_change(old_values.get(key, _NOTHING), value)}"
    yield from (f"  {_label(key)}: your own, kept" for key in comparison.user)
    yield from (f"! {_label(key)}: changed by you and the package" for key in comparison.conflicts)


def _label(key: Key) -> str:
    return ".".join(key[1:] if key[0] == "stages" else key)


def _change(old: Any, new: Any) -> str:
    if isinstance(old, list) and isinstance(new, list):
        signs = [*(f"- {item}" for item in old if item not in new)]
        signs += [f"+ {item}" for item in new if item not in old]
        return ", ".join(signs) or "in another order"
    if old is _NOTHING or new is _NOTHING:
        return f"new: {new}" if old is _NOTHING else "gone"
    return f"{old} -> {new}"


def _changed(text: str, changes: dict[Key, Any], package_text: str) -> str:
    """Put the package's changes into a user's dvc.yaml; its comments stay."""
    yaml, out = YAML(), io.StringIO()
    yaml.width, yaml.preserve_quotes = 4096, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    document, package = yaml.load(text), yaml.load(package_text)
    for key, value in changes.items():
        if value is _NOTHING:
            _delete(document, key)
            continue
        node, source = document, package
        for name in key[:-1]:
            node, source = node.setdefault(name, type(document)()), source[name]
        node[key[-1]] = source[key[-1]] if source[key[-1]] == value else value
    yaml.dump(document, out)
    return out.getvalue()


def _delete(node: Any, key: Key) -> None:
    """Delete a value, and mappings that it leaves empty."""
    if len(key) > 1:
        _delete(node[key[0]], key[1:])
    if len(key) == 1 or not node[key[0]]:
        del node[key[0]]
