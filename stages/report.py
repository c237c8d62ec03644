"""`report`: gather the numbers, draw the figures, write the model card."""

from pathlib import Path

from rich.console import Console

from interlace.params import ReportParams
from interlace.report.write import write_report
from interlace.sources import model_folder
from stages.command import command, pinned


@command(ReportParams)
def main(params: ReportParams) -> None:
    """Gather the numbers of the run, draw its figures and write the model card."""
    dense = model_folder(pinned("model"))
    table = write_report(Path("artifacts"), Path("metrics"), dense_dir=dense, params=params)
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
