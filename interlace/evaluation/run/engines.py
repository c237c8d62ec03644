"""The engine behind an evaluation: a model that is opened here, or servers of it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.evaluation.run import server
from interlace.evaluation.run.servers import Servers
from interlace.evaluation.scores.result import ServingEngine
from interlace.params.evaluating import Evaluate
from interlace.params.served import ServedModel
from interlace.sources.endpoint import Endpoint
from interlace.sources.served import check_served, warn_of_plain_http
from interlace.system.distributed import process_rank

if TYPE_CHECKING:
    from interlace.evaluation.run.answering import Adapter
    from interlace.evaluation.run.served import Resize

FIELD = "evaluate.endpoint"


@dataclass(frozen=True)
class OpenEngine:
    """An engine that answers.

    Attributes:
        adapter: asks it.
        facts: of `Evaluation`: versions, device, dtype and engine.
    """

    adapter: Adapter
    facts: dict[str, Any]


def check_engine(params: Evaluate, *, warn: bool = False) -> None:
    """Refuse settings of an engine that cannot work; nothing is asked.

    Args:
        params: of the evaluation.
        warn: also print what is allowed and unwise.

    Raises:
        InputError: names the parameter.
    """
    if params.opens_model:
        return
    if params.heldout_metric == "next-token":
        raise InputError(
            f"evaluate.engine = {params.engine}: evaluate.heldout_metric = next-token reads the"
            " model's own numbers, which servers do not tell; set engine to transformers, or the"
            " metric to exact-match"
        )
    if params.engine == "vllm":
        server.check_command(params.vllm)
        return
    if not params.endpoint.urls:
        raise InputError(
            f"{FIELD}.urls: empty; name the servers to ask, e.g. http://localhost:8000/v1"
        )
    for url in params.endpoint.urls:
        served = ServedModel(url=url, model="any", key_variable=params.endpoint.key_variable)
        check_served(served, FIELD, ("urls", "models"))
        if warn:
            warn_of_plain_http(served, FIELD, "urls")


def check_servers(params: Evaluate, model_name: str, folder: Path) -> None:
    """Check that the servers of `evaluate.endpoint` are there and serve a model.

    Args:
        params: of the evaluation; with another engine, nothing is asked.
        model_name: dense, pruned, tuned or reference.
        folder: of the model.

    Raises:
        InputError: a server is down, refuses, or serves other models.
    """
    if params.engine == "endpoint":
        _servers(params, model_name, folder).check_serve()


@contextmanager
def opened(
    checkpoint: Checkpoint, params: Evaluate, model_name: str, *, dtype: str, folder: Path
) -> Iterator[OpenEngine]:
    """Open the engine that answers for a checkpoint, and close it after the block.

    Args:
        checkpoint: the model.
        params: of the evaluation.
        model_name: dense, pruned, tuned or reference.
        dtype: type to compute in, for a model that is opened here.
        folder: for the log of a server that is started, and for the replies of servers of this
            checkpoint.

    Raises:
        InputError: a server does not start, is down, refuses, or serves other models.
    """
    replies = folder / "replies"
    if params.opens_model:
        yield _opened_here(checkpoint, params, dtype)
        return
    resize = _resizer(checkpoint, params.max_pixels)
    if process_rank():
        yield _served(Servers([]), params, resize)  # the first process asks for all
    elif params.engine == "endpoint":
        yield _served(_servers(params, model_name, checkpoint.folder, replies), params, resize)
    else:
        log = folder / f"{model_name}.log"
        with server.running(params.vllm, checkpoint.folder, log) as address:
            options: dict[str, Any] = {"names": ("command", "command"), "memory": replies}
            endpoint = Endpoint(address, server.FIELD, timeout=params.answer_seconds, **options)
            yield _served(Servers([endpoint]), params, resize)


def _opened_here(checkpoint: Checkpoint, params: Evaluate, dtype: str) -> OpenEngine:
    from interlace.evaluation.run.adapter import open_adapter

    adapter = open_adapter(checkpoint, params, dtype=dtype)
    facts = {
        "versions": _versions("torch", "transformers", "lmms-eval"),
        "device": _device_name(adapter.device),
        "dtype": str(adapter.dtype).removeprefix("torch."),
    }
    return OpenEngine(adapter, facts)


def _servers(
    params: Evaluate, model_name: str, folder: Path, replies: Path | None = None
) -> Servers:
    """Return the clients of `evaluate.endpoint` for one model; an unnamed one is its folder."""
    name = getattr(params.endpoint.models, model_name, None) or str(folder.absolute())
    key = params.endpoint.key_variable
    return Servers(
        [
            Endpoint(
                ServedModel(url=url, model=name, key_variable=key),
                FIELD,
                names=("urls", f"models.{model_name}"),
                memory=replies,
                timeout=params.answer_seconds,
            )
            for url in dict.fromkeys(params.endpoint.urls)
        ]
    )


def _resizer(checkpoint: Checkpoint, max_pixels: int | None) -> Resize | None:
    """Return what makes images the size that servers are to see; `None`: they see them whole."""
    from interlace.evaluation.run.served import resizer

    if max_pixels is None:
        return None
    return resizer(checkpoint.open_processor(max_pixels=max_pixels))


def _served(servers: Servers, params: Evaluate, resize: Resize | None) -> OpenEngine:
    """Return the engine of servers that all serve the model.

    Raises:
        InputError: one is down, refuses, or serves other models.
    """
    from interlace.evaluation.run.served import ServedAdapter

    servers.check_serve()
    adapter = ServedAdapter(
        servers, concurrency=params.concurrency, max_failed=params.max_failed, resize=resize
    )
    command = server.command_name(params.vllm.command) if params.engine == "vllm" else None
    engine = ServingEngine(name=params.engine, version=servers.version, command=command)
    servers.identify(engine.model_dump_json())
    return OpenEngine(adapter, {"versions": _versions("lmms-eval"), "engine": engine})


def _versions(*packages: str) -> dict[str, str]:
    return {name.replace("-", "_"): importlib.metadata.version(name) for name in packages}


def _device_name(device: object) -> str:
    import torch

    kind = torch.device(str(device))
    return torch.cuda.get_device_name(kind) if kind.type == "cuda" else kind.type
