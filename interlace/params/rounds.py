"""Parameters of pruning in rounds."""

from __future__ import annotations

from interlace.params.choosing import Method, Ratio, Select
from interlace.params.exporting import Compensation
from interlace.params.healing import Finetune
from interlace.params.measuring import Answers, Collect
from interlace.params.section import Section, Seed


class RoundsParams(Section):
    """`rounds`: prune in steps and measure again; nothing for a single round."""

    ratio: Ratio
    method: Method
    seed: Seed
    select: Select = Select()
    collect: Collect = Collect()
    sensitivity: Answers = Answers()
    export: Compensation = Compensation()
    finetune: Finetune = Finetune()
