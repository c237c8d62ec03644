"""`collect`: measure how much every span of layers changes the hidden states."""

from pathlib import Path

from interlace.chat import open_processor
from interlace.hidden_states import collect, provenance_of
from interlace.params import CollectParams
from interlace.sources import model_folder, open_model
from stages.command import command, is_first_process, pinned, scratch_folder


@command(CollectParams)
def main(params: CollectParams) -> None:
    """Run the dense model over the calibration set and the probes; write what it did to Parquet."""
    if not is_first_process():
        return  # one process measures, however many are launched
    model = pinned("model")
    folder, trust = model_folder(model), model["trust_remote_code"]
    rows = [Path("data/calibration"), Path("data/probes")]
    inputs = [Path("artifacts/sources.json"), *rows]
    collect(
        open_model(folder, dtype=params.collect.dtype, trust_remote_code=trust),
        open_processor(folder, max_pixels=params.collect.max_pixels, trust_remote_code=trust),
        rows,
        Path("artifacts/hidden_states"),
        params=params.collect,
        scratch=scratch_folder("collect", params, inputs),
        provenance=provenance_of(model),
    )


if __name__ == "__main__":
    main()
