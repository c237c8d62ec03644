"""llama.cpp: build it from the source that llama-cpp-python holds, convert, quantise and ask."""

from __future__ import annotations

import shutil
import sys
import tarfile
from pathlib import Path

from benchmarks.deploy.environment import CannotRun, pinned, run_program
from benchmarks.deploy.questions import LONGEST
from benchmarks.deploy.setting import Setting

CONVERTER = Path(__file__).parent / "workers" / "convert_gguf.py"
PROGRAMS = ("llama-mtmd-cli", "llama-quantize", "llama-perplexity")
OPTIONS = (
    "CMAKE_BUILD_TYPE=Release",
    "BUILD_SHARED_LIBS=OFF",
    "GGML_OPENMP=OFF",
    "LLAMA_CURL=OFF",
    "LLAMA_OPENSSL=OFF",
    "LLAMA_BUILD_TESTS=OFF",
    "LLAMA_BUILD_EXAMPLES=OFF",
    "LLAMA_BUILD_SERVER=OFF",
)


def build(folder: Path, seconds: float) -> None:
    """Fetch the source distribution and build three programs, with cmake and ninja of `folder`.

    Raises:
        CannotRun: the source cannot be had, or does not build.
    """
    log, python = folder / "build.log", folder / "bin" / "python"
    archives = folder / "archive"
    fetch = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    package = f"llama-cpp-python=={pinned('llamacpp', 'llama-cpp-python')}"
    run_program([*fetch, "--dest", archives, package], log, seconds)
    for archive in archives.glob("*.tar.gz"):
        with tarfile.open(archive) as files:
            files.extractall(folder / "unpacked", filter="data")
    for source in (folder / "unpacked").glob("*/vendor/llama.cpp"):
        source.rename(folder / "llama.cpp")
    shutil.rmtree(archives)
    cmake, ninja, out = folder / "bin" / "cmake", folder / "bin" / "ninja", folder / "build"
    settings = [f"-D{option}" for option in (*OPTIONS, f"CMAKE_MAKE_PROGRAM={ninja}")]
    run_program([cmake, "-G", "Ninja", "-S", source_of(folder), "-B", out, *settings], log, seconds)
    run_program([ninja, "-C", out, "-j2", *PROGRAMS], log, seconds)


def source_of(folder: Path) -> Path:
    """Return the folder of llama.cpp's source in its environment."""
    return folder / "llama.cpp"


def program(folder: Path, name: str) -> Path:
    """Return a built program."""
    return folder / "build" / "bin" / name


def convert(
    folder: Path, checkpoint: Path, out: Path, seconds: float, *further: str, kind: str = "f32"
) -> None:
    """Convert a checkpoint to GGUF with llama.cpp's converter, in this environment."""
    log = out.with_suffix(".log")
    arguments = [checkpoint.absolute(), "--outfile", out, "--outtype", kind, *further]
    run_program([sys.executable, CONVERTER, source_of(folder), *arguments], log, seconds)


def answers(setting: Setting, checkpoint: Path, quantised: str) -> list[str]:
    """Convert a checkpoint, quantise its text part, and let llama-mtmd-cli answer greedily.

    Args:
        setting: the questions; its work folder keeps the GGUF files.
        checkpoint: the checkpoint.
        quantised: F32, or a kind that llama-quantize knows.

    Raises:
        CannotRun: a step fails.
    """
    folder, work, seconds = setting.environment, setting.work, setting.seconds
    work.mkdir(parents=True, exist_ok=True)
    text, vision, log = work / "F32.gguf", work / "mmproj.gguf", work / "log.txt"
    if not (text.exists() and vision.exists()):
        convert(folder, checkpoint, text, seconds)
        convert(folder, checkpoint, vision, seconds, "--mmproj")
    model = work / f"{quantised}.gguf"
    if not model.exists():
        run_program([program(folder, "llama-quantize"), text, model, quantised], log, seconds)
    files = ["-m", model, "--mmproj", vision]
    settings = [
        "--temp",
        "0",
        "-n",
        str(LONGEST),
        "-c",
        "1024",
        "-t",
        "1",
        "--jinja",
        "--no-warmup",
    ]
    texts = []
    for question in setting.questions:
        images = [word for path in question.images for word in ("--image", path)]
        command = [program(folder, "llama-mtmd-cli"), *files, *images, *settings]
        texts.append(run_program([*command, "-p", question.text], log, seconds))
    if not any(texts):
        raise CannotRun("llama-mtmd-cli printed no answer")
    return texts
