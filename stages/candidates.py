"""`candidates`: heal several plans for a few steps each, and choose the best of them."""

from pathlib import Path

from interlace.params.candidates import CandidatesParams
from interlace.plan.candidates import choice_line, write_candidates
from interlace.printable import say
from interlace.samples.own_answers import training_set
from interlace.selection.candidates import candidate_plans, read_question

from .command import command, is_first_process, pinned, scratch_folder

OUT, DENSE, CALIBRATION = map(
    Path, ("artifacts/candidates", "artifacts/dense.json", "data/calibration")
)


@command(CandidatesParams)
def main(params: CandidatesParams) -> None:
    """Heal several plans and choose the one of the lowest loss; return at once where none are."""
    if not params.select.candidates:
        if is_first_process():
            write_candidates(OUT, [], [])
            say("candidates: no plans are compared")
        return
    from interlace.healing.candidates import candidate_options, heal_candidates
    from interlace.pruning.dense import Dense

    plans = candidate_plans(read_question(Path("artifacts"), params))
    train = training_set(Path("data/train"), Path("data/answers"))
    dense = Dense(pinned().model.checkpoint(), CALIBRATION, params.answer_options)
    options = candidate_options(params)
    with scratch_folder("candidates", [DENSE, CALIBRATION, train], options, keep=True) as scratch:
        losses = heal_candidates(dense, plans, train, params=params, scratch=scratch)
    if is_first_process():
        say(f"candidates: {choice_line(write_candidates(OUT, plans, losses))}")


if __name__ == "__main__":
    main()
