"""`report`: gather the numbers, draw the figures, write the model cards and the page."""

import os
from pathlib import Path

from interlace.params.whole import ReportParams
from interlace.report.facts.inputs import Workspace, check_same_run
from interlace.report.terminal.console import print_blocks
from interlace.report.write import write_report

from .command import command, pinned


@command(ReportParams)
def main(params: ReportParams) -> None:
    """Gather the numbers of the run, draw its figures, write the model cards and the page."""
    if "DVC_STAGE" not in os.environ:  # by hand, stages may have been run in any order
        check_same_run(Workspace())
    dense = pinned().model.checkpoint().folder
    table = write_report(
        Path("artifacts"), Path("metrics"), Path("data"), dense_dir=dense, params=params
    )
    print_blocks(table)


if __name__ == "__main__":
    main()
