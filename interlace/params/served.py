"""Parameters of a served model: behind an endpoint, or on a server that a stage starts."""

from __future__ import annotations

from pydantic import Field

from interlace.params.section import Section


class ServedModel(Section):
    """A model that an endpoint serves."""

    url: str | None = Field(
        None, description="address of the endpoint, e.g. http://localhost:8000/v1; none: not used"
    )
    model: str | None = Field(None, description="the model to ask there")
    key_variable: str | None = Field(
        None, description="environment variable that holds the endpoint's key; none: no key"
    )


class Vllm(Section):
    """A server that a stage starts on each checkpoint, and stops."""

    command: str = Field(
        "vllm serve --generation-config vllm",
        description="command that serves a checkpoint, in any environment; the checkpoint's path,"
        " --host and --port are appended. Settings of generation in the checkpoint's files would"
        " make answers that are not the model's own, so the default leaves them out",
    )
    ready_seconds: int = Field(
        1800, ge=1, description="longest wait until it is ready to answer, seconds"
    )
