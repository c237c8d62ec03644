"""`answers`: write the dense model's answers to the training prompts, to train on."""

from pathlib import Path

from interlace.params.answers import AnswersParams, RowBounds
from interlace.params.section import validated
from interlace.printable import say
from interlace.samples.own_answers import write_labels
from stages.command import command, is_first_process, pinned, read_pinned, scratch_folder

TRAIN, OUT = Path("data/train"), Path("data/answers")


@command(AnswersParams)
def main(params: AnswersParams) -> None:
    """Answer the training prompts by the dense model; with labels, only say so."""
    options = params.answers
    if options.source == "labels":
        if is_first_process():
            write_labels(OUT)
        return
    from interlace.data.answers import answer_rows
    from interlace.data.dense_answers import open_dense_model

    model = pinned().model
    bounds = validated(RowBounds, read_pinned("params")["row_bounds"], "artifacts/params.json")
    same = options.model_copy(update={"max_empty": 0})  # may be raised when it stopped a run
    key = params.model_copy(update={"answers": same})
    with scratch_folder("answers", [Path("artifacts/dense.json"), TRAIN], key, bounds) as scratch:
        answerer = open_dense_model(
            model.checkpoint(), options, bounds, dtype=params.dtype, seed=params.seed
        )
        sheet = answer_rows(answerer, TRAIN, OUT, params=options, scratch=scratch)
    if sheet:
        say(f"answers: {sheet}")


if __name__ == "__main__":
    main()
