"""`sample`: draw the training set, the calibration set and the domain probes; describe them."""

from dataclasses import asdict
from pathlib import Path

from interlace.data.datasheet import datasheet
from interlace.data.files import data_files
from interlace.data.probes import tasks_to_ask, write_probes
from interlace.data.sets import sample
from interlace.params.inputs import SampleParams
from interlace.printable import say
from interlace.system.outputs import write_json

from .command import command, pinned, scratch_folder, scratch_root

OUT = Path("data")


@command(SampleParams)
def main(params: SampleParams) -> None:
    """Draw the training rows of every subset, and from them calibration rows and probes."""
    source, seed, data = pinned().data, params.seed, params.data
    tasks = tasks_to_ask(params.probes)
    train, calibration, probes = OUT / "train", OUT / "calibration", OUT / "probes"
    same = data.model_copy(update={"workers": 1, "revision": source.model_dump_json()})
    with scratch_folder("sample", [], SampleParams(seed=seed, data=same)) as scratch:
        folders = {"scratch": scratch, "outlines": scratch_root() / "outlines"}
        counts = sample(data_files(source), train, calibration, data=data, seed=seed, **folders)
        n_probes = write_probes(train, probes, tasks, probes=params.probes, seed=seed)
        sheet = datasheet(counts, train, calibration, probes)
        write_json(OUT / "datasheet.json", asdict(sheet))
    say(f"{sheet}\nsample: {n_probes} domain probes of {len(tasks)} tasks")


if __name__ == "__main__":
    main()
