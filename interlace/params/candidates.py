"""Parameters of healing several plans before one is chosen."""

from __future__ import annotations

from interlace.params.choosing import Method, Ratio, Select
from interlace.params.exporting import ExportParams
from interlace.params.healing import FinetuneParams


class CandidatesParams(ExportParams, FinetuneParams):
    """`candidates`: heal several plans and compare them; nothing without `select.candidates`."""

    ratio: Ratio
    method: Method
    select: Select = Select()
