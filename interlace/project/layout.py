"""The files of a project: the pipeline, its parameters, and what DVC and git need."""

from __future__ import annotations

import re
from pathlib import Path

from interlace.project.profiles import DEMO, FILES, Profile, project_params

PIPELINE, BASE = Path("dvc.yaml"), Path(".dvc/interlace.yaml")
JOINED = (Path(".gitignore"), Path(".dvcignore"))  # lines are added to those that are there
SPARED = (
    Path("README.md"),
    Path(".dvc/config"),
    Path(".dvc/.gitignore"),
    Path(".dvc/plots.html"),
)  # never replaced
_COMMAND = re.compile(r"(\bcmd: .*?) stages\.")
_GITIGNORE = """\
/.scratch/
/artifacts/
/data/answers/
/data/calibration/
/data/datasheet.json
/data/probes/
/data/train/
/dvc_plots/
/logs/
/metrics/ttft.json
*.partial
.*.lock
.*.old
"""
_DVCIGNORE = """\
.scratch
.venv
/logs
"""
_DVC_GITIGNORE = """\
/config.local
/tmp
/cache
"""
_CONFIG = """\
[core]
    analytics = false
    check_update = false
[cache]
    type = "hardlink,symlink"
[plots]
    html_template = plots.html
"""
_README = """\
# {name}

A project of Interlace: decoder layers of {model} are removed, and the rest is healed on {data}.

    dvc repro                   # runs what changed; after an interruption, the same command resumes
    interlace show              # the layers that went, and the scores before and after
    dvc exp run -S ratio=0.2    # another value of params.yaml, after a first `git commit`

`artifacts/tuned` is the new checkpoint, and `artifacts/report/report.html` shows all about it.
`params.yaml` holds the settings. After an update of Interlace, `interlace upgrade` says what
changed in `dvc.yaml`.
"""


def pipeline_text() -> str:
    """Return the package's dvc.yaml, with the stages of the installed package."""
    return _COMMAND.sub(r"\1 interlace.stages.", (FILES / "pipeline.yaml").read_text("utf-8"))


def project_files(
    name: str,
    profile: Profile,
    model: str | None,
    data: str | None,
    heldout: str | None = None,
) -> dict[Path, bytes | Path]:
    """Lay out a project.

    Args:
        name: of the project, for its readme.
        profile: to start from.
        model: in place of the profile's, or None.
        data: in place of the profile's, or None.
        heldout: file of rows in place of what the profile scores models on, or None.

    Returns:
        Contents by path, and files to copy.

    Raises:
        InputError: the parameters are not allowed.
    """
    params = project_params(profile, model, data, heldout)
    ids = Profile(name, params).params
    readme = _README.format(name=name, model=f"`{ids.model.id}`", data=f"`{ids.data.id}`")
    texts = {
        **{"params.yaml": params, "README.md": readme},
        **{".gitignore": _GITIGNORE, ".dvcignore": _DVCIGNORE},
        **{".dvc/config": _CONFIG, ".dvc/.gitignore": _DVC_GITIGNORE},
        str(BASE): pipeline_text(),
    }
    files: dict[Path, bytes | Path] = {Path(path): text.encode() for path, text in texts.items()}
    files[Path("data/probes.yaml")] = FILES / "probes.yaml"
    files[Path(".dvc/plots.html")] = FILES / "plots.html"  # of `dvc plots show`, without a network
    if profile.name == DEMO:
        demo = FILES / "demo"
        for path in (*demo.glob("*.parquet"), *sorted((demo / "model").iterdir())):
            files["data/demo" / path.relative_to(demo)] = path
    return files | {PIPELINE: pipeline_text().encode()}  # last: it makes the folder a project
