"""`collect`: measure how much every span of layers changes the hidden states; count tokens."""

from pathlib import Path

from interlace.measurements.collect import collect, provenance_of
from interlace.measurements.token_counts import text_tokens, token_sheet
from interlace.params.measuring import CollectParams
from interlace.printable import say
from interlace.system.outputs import write_json

from .command import command, is_first_process, pinned, scratch_folder


@command(CollectParams)
def main(params: CollectParams) -> None:
    """Run the dense model over the calibration set and the probes; write what it did to Parquet."""
    model, options = pinned().model, params.collect_options
    dense = model.checkpoint()
    train, *rows = (Path("data") / name for name in ("train", "calibration", "probes"))
    inputs, out = [Path("artifacts/dense.json"), *rows], Path("artifacts/hidden_states")
    key = options.model_copy(update={"max_bad": 0})  # may be raised when it stopped a run
    with scratch_folder("collect", inputs, key) as scratch:
        processor = dense.open_processor(max_pixels=options.max_pixels)
        counted = [train, rows[1]] if is_first_process() else []
        # before the pass over the samples, which may take hours
        text = [text_tokens(processor.tokenizer, folder) for folder in counted]
        opened = dense.open_model(**options.opening())
        provenance = provenance_of(model)
        collected = collect(
            opened, processor, rows, out, params=options, scratch=scratch, provenance=provenance
        )
    if collected:
        write_json(Path("artifacts/tokens.json"), token_sheet(out / "similarity", *text))
        where = f" (see {out}/left_out.parquet)" if collected.skipped else ""
        say(f"collect: {collected.samples} samples, {collected.skipped} skipped{where}")


if __name__ == "__main__":
    main()
