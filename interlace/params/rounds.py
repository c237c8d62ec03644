"""Parameters of pruning in rounds."""

from __future__ import annotations

from interlace.params.choosing import Method, Ratio, Select
from interlace.params.exporting import ExportParams
from interlace.params.healing import FinetuneParams
from interlace.params.measuring import CollectParams


class RoundsParams(CollectParams, ExportParams, FinetuneParams):
    """`rounds`: prune in steps and measure again; nothing for a single round."""

    ratio: Ratio
    method: Method
    select: Select = Select()
