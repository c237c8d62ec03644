"""Parameters of pruning in rounds."""

from __future__ import annotations

from interlace.params.candidates import CandidatesParams
from interlace.params.measuring import CollectParams


class RoundsParams(CollectParams, CandidatesParams):
    """`rounds`: prune in steps and measure again; nothing for a single round."""
