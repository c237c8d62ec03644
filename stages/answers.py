"""`answers`: write the dense model's answers to the training prompts, to train on."""

from pathlib import Path

from interlace.params.answers import AnswersParams, RowBounds
from interlace.params.section import validated
from interlace.printable import say
from interlace.samples.own_answers import write_labels

from .command import (
    ANSWERS,
    command,
    is_first_process,
    pinned,
    read_pinned,
    scratch_folder,
    scratch_root,
)

TRAIN = Path("data/train")


@command(AnswersParams)
def main(params: AnswersParams) -> None:
    """Answer the training prompts by the dense model; with labels, only say so."""
    options = params.answers
    if options.source == "labels":
        if is_first_process():
            write_labels(ANSWERS)
            say("answers: those of the data")
        return
    from interlace.data.answerers import open_answerer
    from interlace.data.answers import answer_rows

    model, memory = pinned().model, scratch_root() / "answered"
    bounds = validated(RowBounds, read_pinned("params")["row_bounds"], "artifacts/params.json")
    key = params.model_copy(update={"answers": options.determining})
    with scratch_folder("answers", [Path("artifacts/dense.json"), TRAIN], key, bounds) as scratch:
        answerer = open_answerer(model.checkpoint(), params, bounds, memory=memory)
        sheet = answer_rows(answerer, TRAIN, ANSWERS, params=options, scratch=scratch)
    if sheet:
        say(f"answers: {sheet}")


if __name__ == "__main__":
    main()
