"""The records of what comes from outside, as `pin` writes them to artifacts/sources.json.

A source is a hub id or a local path. Its record is a hub revision, or the sizes and hashes of local
files: it changes exactly when the contents do.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import MissingInputError
from interlace.model.families import takes_images
from interlace.model.kinds import LayerKinds
from interlace.sources.hub import hub_snapshot
from interlace.system.documents import read_json
from interlace.system.outputs import write_json

PREFIX = "pinned_"  # of the keys of sources.json


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class PinnedFile(_Record):
    """A local file.

    Attributes:
        size: bytes.
        sha256: of its contents.
    """

    size: int
    sha256: str


Files = dict[str, PinnedFile]  # by path below the source, with forward slashes


class PinnedData(_Record):
    """A data set in Parquet.

    Attributes:
        id: hub id or local path.
        files: of a local source.
        revision: of a source on the hub.
    """

    id: str
    files: Files | None = None
    revision: str | None = None


class PinnedJudged(_Record):
    """Judged sets, all local.

    Attributes:
        files: of each set, by the path that the parameters name.
    """

    files: dict[str, Files]


class PinnedModel(_Record):
    """The dense model.

    Attributes:
        id: hub id or local folder.
        trust_remote_code: let the model's own Python code run.
        files: of a local folder.
        revision: of a repository on the hub.
        model_type: the family, as transformers names it.
        n_layers: decoder layers.
        deepstack_layers: leading decoder layers up to the last that visual features are added to.
        layer_kinds: the kinds of its layers, where they differ.
    """

    id: str
    trust_remote_code: bool
    files: Files | None = None
    revision: str | None = None
    model_type: str
    n_layers: int
    deepstack_layers: int
    layer_kinds: LayerKinds | None = None

    @property
    def takes_images(self) -> bool:
        """True for a vision-language model, False for one that takes text alone."""
        return takes_images(self.model_type)

    def identity(self) -> dict[str, str]:
        """Return the `model` (its id) and the `revision`, or a hash of a local folder's files."""
        files = json.dumps(self.model_dump(mode="json")["files"], sort_keys=True)
        revision = self.revision or hashlib.sha256(files.encode()).hexdigest()[:16]
        return {"model": self.id, "revision": revision}

    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint, fetched from the hub if it has to be.

        Raises:
            InputError: the hub cannot be reached, or the repository lacks weights.
        """
        if self.files is not None:
            return Checkpoint(Path(self.id), self.trust_remote_code)
        folder = hub_snapshot(self.id, self.revision, "model", None)
        checkpoint = Checkpoint(folder, self.trust_remote_code)
        checkpoint.check()
        return checkpoint

    def configuration(self) -> Checkpoint:
        """Return the checkpoint without its weights: nothing but config.json need be there."""
        if self.files is not None:
            return Checkpoint(Path(self.id), self.trust_remote_code)
        folder = hub_snapshot(self.id, self.revision, "model", ["config.json"])
        return Checkpoint(folder, self.trust_remote_code)


class PinnedSources(_Record):
    """All sources of a run; `None` for what the parameters do not ask for."""

    model: PinnedModel
    data: PinnedData
    prompts: PinnedData | None = None
    heldout: PinnedData | None = None
    judged: PinnedJudged | None = None
    benchmarks: PinnedData | None = None

    @classmethod
    def read(cls, path: Path) -> PinnedSources:
        """Read sources.json.

        Raises:
            InputError: it is not there, or not as `pin` writes it.
        """
        records = read_json(path)
        if not isinstance(records, dict):
            raise MissingInputError(path, "does not hold the sources by name")
        try:
            return cls.model_validate(
                {name.removeprefix(PREFIX): record for name, record in records.items()}
            )
        except ValidationError as error:
            raise MissingInputError.invalid(path, error) from None

    def as_json(self) -> dict[str, Any]:
        """Return the contents of sources.json."""
        return {
            f"{PREFIX}{name}": record and record.model_dump(mode="json", exclude_none=True)
            for name, record in self
        }

    def write(self, folder: Path) -> None:
        """Write sources.json and, for stages that read nothing but the model, dense.json."""
        records = self.as_json()
        write_json(folder / "sources.json", records)
        write_json(folder / "dense.json", records[f"{PREFIX}model"])

    @property
    def local(self) -> bool:
        """True where no source is on the hub."""
        return all(record.files is not None for _, record in self if record)
