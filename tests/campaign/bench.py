"""The bench: the server, the unharmed projects, and folders to break copies of them in."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaign import project
from campaign.faults import Fault
from campaign.outcomes import Run
from campaign.project import CHAIN, STAGES, Stage
from campaign.server import Program, Server

LIMIT = 60.0
PLAIN: dict[str, Any] = {
    **{"ratio": 0.25, "reference": "none", "heal": {}},
    **{"select": {"protect_first": 0}},
}
PROJECTS = {"full": {}, "plain": PLAIN, "loss": project.LOSS}


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
        names: of the projects to lay out.
        keep: keep the folders of tries.
        limit: seconds for a stage, of a few seconds at most.
        variables: of the environment of all programs.
    """

    folder: Path
    names: Sequence[str] = ("full", "plain", "loss", "local")
    keep: bool = False
    limit: float = LIMIT
    variables: dict[str, str] = field(default_factory=dict)
    server: Server = field(init=False)
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    digests: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._short = Path(tempfile.mkdtemp(prefix="campaign-"))  # sockets need a short path
        self.server = Server(self._short)
        with contextlib.suppress(FileNotFoundError):
            for name in ("bases", "tries"):
                shutil.rmtree(self.folder / name)
        (self.folder / "tries").mkdir()
        for name in self.names:
            self._lay_out(name)

    def base(self, name: str) -> Path:
        """The folder of an unharmed project."""
        return self.folder / "bases" / name

    def _lay_out(self, name: str) -> None:
        base = self.base(name)
        if name == "local":
            project.copied(self.base("full"), base)
            shutil.rmtree(base / ".dvc", ignore_errors=True)
            params = project.small({"reference": "none"})
            params["finetune"] = params["finetune"] | {"max_steps": 0}
            project.write_params(base, params)
            names: Sequence[str] = ("pin", "finetune")
        else:
            project.build(base, PROJECTS[name])
            names = CHAIN[: CHAIN.index("sensitivity") + 1] if name == "loss" else CHAIN
        if name == "full":
            self._must(base, ["dvc", "init", "--no-scm", "--quiet"], name)
            config = (project.ROOT / ".dvc/config").read_text()
            text = config.replace("[core]", "[core]\n    no_scm = true")
            (base / ".dvc/config").write_text(text)
            self._must(base, ["dvc", "repro"], name)
        else:
            for stage in names:
                self._must(base, STAGES[stage].command, name)
        self.digests[name] = project.outputs_of(base, [n for n in CHAIN if n in names])
        for path in (base / "counts").glob("*.json"):
            self.counts[f"{name}/{path.stem}"] = json.loads(path.read_text())

    def _must(self, base: Path, command: Sequence[str], name: str) -> None:
        counter = base / "counts"
        counter.mkdir(exist_ok=True)
        fault = Fault(stage="*", action="count", counter=str(counter))
        run = self.run(base, command, fault=fault, limit=600)
        if run.code != 0:
            raise RuntimeError(f"the unharmed project {name} fails: {run.output[-2000:]}")

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
        """End the server; remove all folders."""
        self.server.close()
        shutil.rmtree(self._short, ignore_errors=True)
        if not self.keep:
            shutil.rmtree(self.folder / "tries", ignore_errors=True)


def ended(program: Program, command: Sequence[str] | Stage, limit: float = LIMIT) -> Run:
    """Wait for a program's end."""
    words = command.command if isinstance(command, Stage) else command
    label = " ".join(word for word in words if word not in ("python", "-m"))
    code = program.wait(limit)
    program.drain()
    return Run(label, code, program.output)
