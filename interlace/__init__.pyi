from interlace.evaluation.call import evaluate as evaluate
from interlace.healing.call import heal as heal
from interlace.measurements.measure import measure as measure
from interlace.methods.registry import register_method as register_method
from interlace.plan.record import Plan as Plan
from interlace.plan.record import read_plan as read_plan
from interlace.pruning.call import export as export
from interlace.pruning.prune import prune as prune
from interlace.report.figures.notebook import draw as draw
from interlace.selection.select import select as select
from interlace.speed.call import time_to_first_token as time_to_first_token

__version__: str
