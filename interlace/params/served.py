"""Parameters of a model behind an endpoint with OpenAI's chat completions."""

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
