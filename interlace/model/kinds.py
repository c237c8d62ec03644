"""The kinds of a decoder's layers, where they differ, and the period in which they repeat."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from interlace.model.families import Config, as_read, decoder_kind, text_config
from interlace.model.rules import DECODERS


class LayerKinds(BaseModel):
    """The kinds of all layers of a decoder that has more than one.

    Attributes:
        decoder: `model_type` of the text configuration.
        fields: its fields with an entry per layer, where the entries differ, e.g. `layer_types`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decoder: str
    fields: dict[str, tuple[str | int, ...]]

    @property
    def by_layer(self) -> list[tuple[str | int, ...]]:
        """The entries of each layer."""
        return list(zip(*self.fields.values(), strict=True))

    @property
    def period(self) -> int | None:
        """The least number of layers after which all kinds repeat; None without two periods."""
        kinds = self.by_layer
        lengths = range(1, len(kinds) // 2 + 1)
        return next((length for length in lengths if kinds[length:] == kinds[:-length]), None)


def layer_kinds(config: Config, n_layers: int, where: str) -> LayerKinds | None:
    """Read the kinds of layers from a configuration; None where all are of one kind.

    Raises:
        InputError: transformers does not accept it.
    """
    kind = decoder_kind(config, where)
    text, names = text_config(config), DECODERS[kind].lists
    if any(not isinstance(text.get(name), list) for name in names):
        text = as_read(config, where)[1] | text
    entries = {name: text.get(name) for name in names}
    fields = {
        name: tuple(values)
        for name, values in entries.items()
        if isinstance(values, list) and len(values) == n_layers and len(set(values)) > 1
    }
    return LayerKinds(decoder=kind, fields=fields) if fields else None
