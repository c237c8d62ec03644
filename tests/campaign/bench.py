"""The bench: the server, the unharmed projects, and folders to break copies of them in."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaign import project
from campaign.faults import Fault
from campaign.outcomes import Run
from campaign.project import CHAIN, STAGES, Stage
from forked_programs import Program, Server, shared

from stages.digests import code_digests

LIMIT = 60.0
PLAIN: dict[str, Any] = {
    **{"ratio": 0.25, "reference": "none", "heal": {}},
    **{"select": {"protect_first": 0}, "answers": {}},
}
PROJECTS: dict[str, dict[str, Any]] = {"full": {}, "plain": PLAIN}
DERIVED_FROM: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "local": (
        {"reference": "none", "finetune": project.SMALL["finetune"] | {"max_steps": 0}},
        ("pin", "finetune"),
    ),
    "loss": (PLAIN | {"method": "sleb"}, ("pin", "sensitivity")),
}
DERIVED = tuple(DERIVED_FROM)


@dataclass(frozen=True)
class Target:
    """A stage to break, in a project in which it has work.

    Attributes:
        name: in the table; the stage's, or what it does there.
        project: the folder of the unharmed project.
        stage: the stage.
    """

    name: str
    project: str
    stage: str


TARGETS = {
    target.name: target
    for target in (
        *(Target(name, "full", name) for name in CHAIN if name != "sensitivity"),
        Target("sensitivity", "loss", "sensitivity"),
        Target("local healing", "local", "finetune"),
    )
}


@dataclass
class Bench:
    """All that tries share.

    Args:
        folder: for the unharmed projects and the copies.
        keep: keep the folders of tries.
        limit: seconds for a stage, of a few seconds at most.
        variables: of the environment of all programs.
    """

    folder: Path
    keep: bool = False
    limit: float = LIMIT
    variables: dict[str, str] = field(default_factory=dict)
    server: Server = field(init=False)
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.server = shared()
        shutil.rmtree(self.folder / "tries", ignore_errors=True)
        (self.folder / "tries").mkdir()
        recorded, key = self.folder / "bases/key", _key()
        if not recorded.exists() or recorded.read_text() != key:
            shutil.rmtree(self.folder / "bases", ignore_errors=True)
            for name in PROJECTS:  # in turn: weights come from torch's one generator
                project.build(self.base(name), PROJECTS[name])
            with ThreadPoolExecutor() as pool:
                list(pool.map(self._lay_out, PROJECTS, DERIVED))
            recorded.write_text(key)
        for path in (self.folder / "bases").glob("*/counts/*.json"):
            self.counts[f"{path.parts[-3]}/{path.stem}"] = json.loads(path.read_text())

    def base(self, name: str) -> Path:
        """The folder of an unharmed project."""
        return self.folder / "bases" / name

    def _lay_out(self, name: str, derived: str) -> None:
        """Run a project, and make the one that differs from it in a few parameters."""
        base, other = self.base(name), self.base(derived)
        if name == "full":
            self._must(base, ["dvc", "init", "--no-scm", "--quiet"])
            config = (project.ROOT / ".dvc/config").read_text()
            text = config.replace("[core]", "[core]\n    no_scm = true")
            (base / ".dvc/config").write_text(text)
            self._must(base, ["dvc", "repro"])
        else:
            for stage in CHAIN:
                self._must(base, STAGES[stage].command)
        ignore = shutil.ignore_patterns(".dvc", "dvc.lock")
        shutil.copytree(base, other, symlinks=True, ignore=ignore)
        changes, stages = DERIVED_FROM[derived]
        project.write_params(other, project.small(changes))
        for stage in stages:
            self._must(other, STAGES[stage].command)

    def _must(self, base: Path, command: Sequence[str]) -> None:
        counter = base / "counts"
        counter.mkdir(exist_ok=True)
        fault = Fault(stage="*", action="count", counter=str(counter))
        run = self.run(base, command, fault=fault, limit=600)
        if run.code != 0:
            raise RuntimeError(f"an unharmed project fails: {run.output[-2000:]}")

    def events(self, target: Target) -> dict[str, Any]:
        """The counts of an unharmed run: `events`, `growth`, `seconds`."""
        return self.counts[f"{target.project}/{target.stage}"]

    @contextlib.contextmanager
    def workspace(self, name: str, *, dvc: bool = False) -> Iterator[Path]:
        """A copy of an unharmed project, removed afterwards."""
        folder = Path(tempfile.mkdtemp(dir=self.folder / "tries")) / "project"
        source = self.base(name)
        skipped = () if dvc else (".dvc", "dvc.lock", ".scratch")
        ignore = shutil.ignore_patterns("counts", *skipped)
        shutil.copytree(source, folder, symlinks=True, ignore=ignore)
        if not dvc:
            for path in folder.rglob("*"):
                path.chmod(path.stat().st_mode | 0o200)
        try:
            yield folder
        finally:
            if not self.keep:
                shutil.rmtree(folder.parent, ignore_errors=True)

    def start(
        self,
        folder: Path,
        command: Sequence[str],
        *,
        fault: Fault | None = None,
        **variables: str,
    ) -> Program:
        """Start a program in a folder."""
        variables = self.variables | variables | (fault.variables() if fault else {})
        log = folder.parent / f"log-{time.monotonic_ns()}"
        return self.server.start(command, folder, log, **variables)

    def run(
        self,
        folder: Path,
        command: Sequence[str],
        *,
        fault: Fault | None = None,
        limit: float | None = None,
        **variables: str,
    ) -> Run:
        """Run a program to its end."""
        program = self.start(folder, command, fault=fault, **variables)
        return ended(program, command, limit or self.limit)

    def stage(self, folder: Path, name: str, **options: Any) -> Run:
        """Run a stage by hand."""
        return self.run(folder, STAGES[name].command, **options)

    def is_same(self, folder: Path, target: Target, names: Sequence[str] = ()) -> bool:
        """Tell if a target's outputs have the bytes of the unharmed project."""
        names = names or (target.stage,)
        wanted = project.outputs_of(self.base(target.project), list(names))
        return project.outputs_of(folder, list(names)) == wanted

    def close(self) -> None:
        """Remove all folders."""
        if not self.keep:
            shutil.rmtree(self.folder / "tries", ignore_errors=True)


def _key() -> str:
    """Digest all that the unharmed projects depend on."""
    files = [Path(__file__), Path(project.__file__), project.ROOT / "dvc.yaml"]
    files += [project.ROOT / "tests/models.py", project.ROOT / "data/demo/tiny_model.py"]
    text = json.dumps(code_digests()) + "".join(file.read_text() for file in files)
    return hashlib.sha256(text.encode()).hexdigest()


def ended(program: Program, command: Sequence[str] | Stage, limit: float = LIMIT) -> Run:
    """Wait for a program's end."""
    words = command.command if isinstance(command, Stage) else command
    label = " ".join(word for word in words if word not in ("python", "-m"))
    code = program.wait(limit)
    program.drain()
    return Run(label, code, program.output)
