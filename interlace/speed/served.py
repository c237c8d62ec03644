"""Time servers of the dense and of the tuned model, the same requests in turn.

Both servers are up at the same time; in each round, each has a turn while the other waits. One that
was started here is suspended then: a worker of vLLM looks for work in a loop for a second after its
last reply, one of SGLang always.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.evaluation.run import server
from interlace.model.chat import Row, chat_messages
from interlace.params.timing import Ttft
from interlace.sources.endpoint import Endpoint
from interlace.sources.streamed import Stream
from interlace.speed.check import COMMAND, FIELD
from interlace.speed.flops import NAMES
from interlace.speed.load import (
    COLOURS,
    Load,
    TurnTiming,
    accepted_fields,
    numbered_requests,
    time_turn,
)
from interlace.speed.requests import rows_to_time
from interlace.system.program import Program

TIMEOUT = 600.0  # seconds without a piece of a reply
SETTLING = 0.2  # seconds for one server to wake and the other to rest
Rounds = list[tuple[TurnTiming, TurnTiming]]  # [R], of dense and tuned
MoreRounds = Callable[[Load, Rounds], int]
Conversation = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Server:
    """A server to time.

    Attributes:
        stream: for its requests.
        program: that it is; `None`: the user's own, which is never suspended.
    """

    stream: Stream
    program: Program | None = None

    @contextmanager
    def turn(self) -> Iterator[Stream]:
        """Let the server run while the block does; suspend it after that."""
        if self.program is None:
            yield self.stream
            return
        self.program.resume()
        time.sleep(SETTLING)
        yield self.stream  # where this raises, the program may be about to end by itself
        self.program.suspend()


Servers = tuple[Server, Server]


@dataclass(frozen=True)
class ServedTimes:
    """Times of servers of the dense and the tuned model.

    Attributes:
        facts: of the servers, for the metrics: engine, version, command, fixed_lengths.
        rounds: by load.
    """

    facts: dict[str, Any]
    rounds: dict[Load, Rounds]


def time_servers(
    dense: Checkpoint,
    tuned: Checkpoint,
    rows: Sequence[Row],
    *,
    params: Ttft,
    seed: int,
    logs: Path,
    more_rounds: MoreRounds = lambda load, rounds: 0,
) -> ServedTimes | None:
    """Time servers of two models; `None` where `params.engine` names none.

    Args:
        dense: the dense model.
        tuned: the model with fewer layers.
        rows: FineVision rows, of which requests are drawn as for models that are opened here.
        params: the engine, the loads, and the rounds.
        seed: of the draw, and of which model goes first.
        logs: folder for the logs of servers that are started.
        more_rounds: counts, from the rounds of a load so far, those to add, until there are none.

    Raises:
        InputError: a server does not start, is down, refuses, or fails at a request.
    """
    if params.engine == "transformers":
        return None
    processor = dense.open_processor()
    conversations = [chat_messages(row)[:1] for row in rows_to_time(processor, rows, params, seed)]
    with served((dense.folder, tuned.folder), params, logs) as servers:
        versions = {one.stream.endpoint.version for one in servers}
        fields = _fields(servers, conversations)
        rounds = time_rounds(servers, conversations, fields, params, seed, more_rounds)
    facts: dict[str, Any] = {"engine": params.engine, "fixed_lengths": bool(fields)}
    if params.engine == "vllm":
        facts["command"] = server.command_name(params.vllm.command)
    if len(versions) == 1 and (version := versions.pop()):
        facts["version"] = version
    return ServedTimes(facts, rounds)


@contextmanager
def served(folders: tuple[Path, Path], params: Ttft, logs: Path) -> Iterator[Servers]:
    """Start servers of the dense and of the tuned model, or find the user's.

    Raises:
        InputError: one does not start, is down, refuses, or serves other models.
    """
    servers = []
    with ExitStack() as stack:
        for name, folder in zip(NAMES, folders, strict=True):
            options: dict[str, Any] = {"timeout": TIMEOUT}
            program = None
            if params.engine == "vllm":
                log = logs / f"{name}.log"
                model, program = stack.enter_context(
                    server.started(params.vllm, folder, log, COMMAND)
                )
                field, options["names"] = COMMAND, ("command", "command")
            else:
                model, field = getattr(params.endpoint, name), f"{FIELD}.{name}"
                folder_name = str(folder.absolute())
                model = model.model_copy(update={"model": model.model or folder_name})
            endpoint = Endpoint(model, field, **options)
            endpoint.check_serves()
            stream = stack.enter_context(closing(Stream(endpoint)))
            servers.append(Server(stream, program))
        yield servers[0], servers[1]


def _fields(servers: Servers, conversations: Sequence[Conversation]) -> dict[str, Any]:
    """Return what both servers accept beside the bare request; this also loads their weights."""
    load = Load(1, 2)
    (request, *_) = numbered_requests(conversations, load, _numbers())
    accepted = []
    for one in servers:
        with one.turn() as stream:
            accepted.append(accepted_fields(stream, request))
    return accepted[0] if accepted[0] == accepted[1] else {}


def _numbers() -> Iterator[int]:
    """Count from a random number, so that a server that runs on knows no request of before."""
    return itertools.count(secrets.randbelow(COLOURS))


def loads(params: Ttft) -> list[Load]:
    """Return the loads to time: replies of one token, and of `new_tokens`."""
    lengths = sorted({1, params.new_tokens})
    return [Load(count, length) for length in lengths for count in sorted(set(params.concurrency))]


def time_rounds(
    servers: Servers,
    conversations: Sequence[Conversation],
    fields: Mapping[str, Any],
    params: Ttft,
    seed: int,
    more_rounds: MoreRounds,
) -> dict[Load, Rounds]:
    """Give both servers a turn per round and load; which goes first alternates."""
    numbers, lead = _numbers(), int(np.random.default_rng(seed).integers(2))
    rounds: dict[Load, Rounds] = {load: [] for load in loads(params)}
    total = len(rounds) * (params.warmup + params.repeats)
    with tqdm(total=total, desc="served speed", unit="round") as progress:
        for load in rounds:
            number, end = -params.warmup, params.repeats
            while number < end:
                requests = numbered_requests(conversations, load, numbers)
                requests = [{**request, **fields} for request in requests]
                order = (0, 1) if (lead + number) % 2 else (1, 0)
                times = {}
                for index in order:
                    with servers[index].turn() as stream:
                        times[index] = time_turn(stream, requests, load.concurrency)
                if number >= 0:  # negative numbers are warm-up
                    rounds[load].append((times[0], times[1]))
                progress.update()
                number += 1
                if number == end and (added := more_rounds(load, rounds[load])):
                    end += added
                    progress.total += added
    return rounds
