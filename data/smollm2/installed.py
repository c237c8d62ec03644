"""Write down which packages of packages.txt are installed, for `build_rows.py` to read.

    python installed.py

Texts differ between versions: this file says when the rows are to be built again. A package that
requirements.lock gains is no source of rows, so that they stay those of the published studies.
"""

import platform
from importlib import metadata
from pathlib import Path

from interlace.system.outputs import write_json

LISTED = Path("packages.txt")


def listed(text: str) -> list[str]:
    """Return the names of the packages in a list with comments, sorted."""
    return sorted(line for line in text.splitlines() if line and not line.startswith("#"))


def installed(names: list[str]) -> dict[str, str]:
    """Return the versions of those packages that this environment has, by name."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


if __name__ == "__main__":
    packages = installed(listed(LISTED.read_text(encoding="utf-8")))
    write_json(Path("installed.json"), {"python": platform.python_version(), "packages": packages})
