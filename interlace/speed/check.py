"""The check of the settings of served speed. No torch here."""

from __future__ import annotations

from interlace.errors import InputError
from interlace.evaluation.run import server
from interlace.params.timing import Ttft
from interlace.sources.served import check_served, warn_of_plain_http
from interlace.speed.flops import NAMES

FIELD, COMMAND = "ttft.endpoint", "ttft.vllm"


def check_served_speed(params: Ttft) -> None:
    """Refuse settings of `ttft.engine` that cannot work; nothing is asked.

    Raises:
        InputError: names the parameter.
    """
    if params.engine == "vllm":
        server.check_command(params.vllm, COMMAND)
    if params.engine == "endpoint":
        for name in NAMES:
            served, field = getattr(params.endpoint, name), f"{FIELD}.{name}"
            if served.url is None:
                raise InputError(
                    f"{field}.url: empty; name its server, e.g. http://localhost:8000/v1"
                )
            check_served(served.model_copy(update={"model": served.model or "any"}), field)
            warn_of_plain_http(served, field, "url")
