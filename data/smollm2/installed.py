"""Write down which of the pinned packages are installed, for `build_rows.py` to read.

    python installed.py

Texts differ between versions: this file, not the lock, says when the rows are to be built again.
"""

import platform
import re
from importlib import metadata
from pathlib import Path

from interlace.system.outputs import write_json

LOCK = Path("../../requirements.lock")


def pinned(lock: str) -> list[str]:
    """Return the names of the packages in a requirements file, sorted."""
    return sorted(re.findall(r"^([\w.-]+)==", lock, re.M))


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
    packages = installed(pinned(LOCK.read_text(encoding="utf-8")))
    write_json(Path("installed.json"), {"python": platform.python_version(), "packages": packages})
