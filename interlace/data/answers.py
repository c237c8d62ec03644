"""The dense model's own answers to the training prompts, as training rows.

Healing on them teaches a pruned model what it lost, and nothing else (arXiv 2410.09982,
2602.01997): the shift to the labels' style and facts, which harms even the dense model, is not
learnt.

A row with several turns becomes the conversation that the dense model has with this user: each turn
is answered after the model's own earlier answers. Training puts labels on all of the assistant's
turns and shows each of them those before it, so all labelled tokens are the dense model's choices
after exactly the text that the pruned model sees. An answer that is cut at the bound ends its row,
and training does not teach to end there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from tqdm import tqdm

from interlace.data.cleaning import freed
from interlace.errors import ContractError, InputError, MissingInputError
from interlace.params.answers import OwnAnswers
from interlace.params.inputs import RATINGS
from interlace.samples.own_answers import OWN_SCHEMA, ROWS, AnswerSheet
from interlace.samples.rows import lowest_ids, shards
from interlace.samples.windows import Window, read_windows, windows_of
from interlace.system.distributed import barrier, process_group, process_rank, world_size
from interlace.system.outputs import remove, whole
from interlace.system.resumable import intact, keep_json

Row = dict[str, Any]
RATED = {f"{name}_{kind}" for name in RATINGS for kind in ("ratings", "min")}


@dataclass(frozen=True)
class OwnAnswer:
    """An answer of the dense model.

    Attributes:
        text: of the answer.
        cut: True if it ran into the bound on its length.
    """

    text: str
    cut: bool


@dataclass(frozen=True)
class TurnPrompt:
    """A row whose conversation ends with a user turn.

    Attributes:
        row: with the images and the turns so far; the last of them has no answer.
        turn: number of the last turn, from 0.
    """

    row: Row
    turn: int


class Answerer(Protocol):
    """Answers prompts: the dense model, opened here or behind an endpoint."""

    rows: int  # of a window, whose prompts are answered together
    name: str | None  # of a served model

    def answer(self, prompts: Sequence[TurnPrompt]) -> list[OwnAnswer | str]:
        """Return an answer to each prompt, or the reason why it gets none."""


@dataclass
class Conversation:
    """The dense model's answers in one row.

    Attributes:
        answers: to its first turns.
        cut: True if the last of them ran into the bound; nobody replies to half an answer.
        reason: why the next turn has no answer; `None` if it has one, or there is none.
        empty: True if that is because the answer to it was empty.
    """

    answers: list[str] = field(default_factory=list)
    cut: bool = False
    reason: str | None = None
    empty: bool = False

    @property
    def ended(self) -> bool:
        """True if no further turn is answered."""
        return self.cut or self.reason is not None


@dataclass(frozen=True)
class _Prompts:
    """The training rows to answer.

    Attributes:
        windows: that cover all rows of the training set.
        ids: of the rows to answer; `None`: all.
    """

    windows: Sequence[Window]
    ids: Collection[str] | None

    @classmethod
    def of(cls, train: Path, samples: int | None, rows: int) -> _Prompts:
        """Choose rows, and windows with about as many chosen rows as are answered together."""
        if samples is None:
            return cls(windows_of([train], rows), None)
        total = sum(window.rows for window in windows_of([train]))
        return cls(windows_of([train], max(1, rows * total // samples)), lowest_ids(train, samples))

    @property
    def count(self) -> int:
        """The number of rows to answer."""
        rows = sum(window.rows for window in self.windows)
        return rows if self.ids is None else len(self.ids)

    def read(self, windows: Sequence[Window]) -> Iterator[tuple[Window, list[Row]]]:
        """Read some windows; yield each with its rows to answer."""
        for window, rows in read_windows(windows):
            yield window, [row for row in rows if self.ids is None or row["sample_id"] in self.ids]


def answer_rows(
    answerer: Answerer, train: Path, out: Path, *, params: OwnAnswers, scratch: Path
) -> AnswerSheet | None:
    """Write the training rows with the dense model's answers in place of their labels.

    Under a launcher the processes share the rows, and the first one writes `out`: the same bytes as
    one process alone. An interrupted run resumes after its last finished windows.

    Args:
        answerer: the dense model.
        train: folder of rows that `sample` wrote.
        out: folder to write: `rows/`, in the order and with the ids of `train`, and their counts.
        params: bounds on answers.
        scratch: folder for finished windows, the same for all processes; must be another one
            whenever inputs or params change, but for `max_empty`.

    Returns:
        The counts; `None` in all processes but the first.

    Raises:
        InputError: there are no rows, or too many answers are empty, or none is left.
        ContractError: a process is gone.
    """
    prompts = _Prompts.of(train, params.samples, answerer.rows)
    if not prompts.windows:
        raise MissingInputError(train, "no rows to answer")
    with process_group():
        pending = [window for window in prompts.windows if not intact(_file(scratch, window))]
        barrier()  # all processes see the same pending windows before one of them finishes any
        share = pending[process_rank() :: world_size()]
        _answer_share(answerer, share, prompts, params, scratch)
        barrier()
    if process_rank() > 0:
        return None
    with whole(out) as partial:
        sheet = _write_rows(prompts, scratch, partial, answerer.name, params)
    remove(scratch)
    return sheet


def _answer_share(
    answerer: Answerer,
    share: Sequence[Window],
    prompts: _Prompts,
    params: OwnAnswers,
    scratch: Path,
) -> None:
    """Answer this process's share of the windows; stop once too many answers are empty."""
    empty, fraction = 0, len(share) / len(prompts.windows)
    total = round(fraction * prompts.count)
    with tqdm(total=total, unit="row", desc="answers", disable=process_rank() > 0) as progress:
        for window, rows in prompts.read(share):
            conversations = converse(answerer, rows, progress)
            keep_json(
                _file(scratch, window), [asdict(conversation) for conversation in conversations]
            )
            empty += sum(c.empty and not c.answers for c in conversations)
            check_empty(empty, prompts.count, params.max_empty)


def _file(scratch: Path, window: Window) -> Path:
    return scratch / f"{window.name}.json"


def converse(answerer: Answerer, rows: Sequence[Row], progress: Any) -> list[Conversation]:
    """Answer all turns of some rows, turn by turn; each row ends with its first missing answer."""
    conversations = [Conversation() for _ in rows]
    turns = max((len(row["texts"]) for row in rows), default=0)
    for turn in range(turns):
        numbers = [
            number
            for number, (row, conversation) in enumerate(zip(rows, conversations, strict=True))
            if turn < len(row["texts"]) and not conversation.ended
        ]
        prompts = [
            TurnPrompt(answered(rows[i], conversations[i].answers, 1), turn) for i in numbers
        ]
        for number, answer in zip(numbers, answerer.answer(prompts), strict=True):
            conversation = conversations[number]
            if isinstance(answer, str):
                conversation.reason = answer
            elif (text := freed(answer.text)).strip():
                conversation.answers.append(text)
                conversation.cut = answer.cut
            else:
                conversation.reason, conversation.empty = "an empty answer", True
            progress.update(int(conversation.ended or turn + 1 == len(rows[number]["texts"])))
    return conversations


def answered(row: Row, answers: Sequence[str], further: int = 0) -> Row:
    """Return a row with other answers to its first turns, and some further turns without any.

    Ratings are left empty: they rate the labels.
    """
    turns = row["texts"][: len(answers) + further]
    padded = [*answers, *[""] * further]
    texts = [
        {"user": turn["user"], "assistant": text} for turn, text in zip(turns, padded, strict=True)
    ]
    return row | dict.fromkeys(RATED & row.keys()) | {"texts": texts}


def check_empty(empty: int, prompts: int, most: float) -> None:
    """Refuse rows of which too many have no answer.

    Raises:
        InputError: the share of empty answers is larger than `most`.
    """
    if empty > most * prompts:
        raise InputError(
            f"answers.max_empty = {most:g}: the dense model's answers to {empty} of {prompts}"
            " training prompts are empty; see that the model was tuned on conversations, raise"
            " answers.max_empty (finished answers are kept), or set answers.source to labels"
        )


def _write_rows(
    prompts: _Prompts, scratch: Path, out: Path, name: str | None, params: OwnAnswers
) -> AnswerSheet:
    """Write the rows of all windows, one window in memory at a time, and their counts."""
    out.mkdir()
    counts: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    with shards(out / ROWS, OWN_SCHEMA) as add:
        for row, conversation in _conversations(prompts, scratch):
            counts["prompts"] += 1
            if conversation.answers:
                rows = [answered(row, conversation.answers) | {"cut": conversation.cut}]
                add(pa.Table.from_pylist(rows, schema=OWN_SCHEMA))
                counts["rows"] += 1
                counts["answers"] += len(conversation.answers)
                counts["cut"] += conversation.cut
                counts["shortened"] += len(conversation.answers) < len(row["texts"])
            elif conversation.empty:
                counts["empty"] += 1
            else:
                skipped[str(conversation.reason)] += 1
    check_empty(counts["empty"], counts["prompts"], params.max_empty)
    if not counts["rows"]:
        raise InputError(
            f"answers.source = dense: none of {counts['prompts']} training prompts got an answer:"
            f" {next(iter(skipped), 'all answers are empty')}; repair the data, or set"
            " answers.source to labels"
        )
    ordered = dict(sorted(skipped.items(), key=lambda item: (-item[1], item[0])))
    sheet = AnswerSheet(
        "dense",
        name,
        params.max_new_tokens,
        params.temperature,
        **counts,
        skipped=ordered,
    )
    sheet.write(out)
    return sheet


def _conversations(prompts: _Prompts, scratch: Path) -> Iterator[tuple[Row, Conversation]]:
    """Yield the answered rows with what the dense model said in them."""
    windows = prompts.windows
    bar = tqdm(prompts.read(windows), total=len(windows), unit="window", desc="write")
    for window, rows in bar:
        file = _file(scratch, window)
        if not intact(file):
            raise ContractError(
                f"{file}: not all rows are answered, and no process is left to answer them; all"
                " processes need one .scratch folder: put the repository on a shared disk"
            )
        values: list[Mapping[str, Any]] = json.loads(file.read_bytes())
        yield from zip(rows, (Conversation(**value) for value in values), strict=True)
