from __future__ import annotations

from pathlib import Path

from interlace.evaluation.run.journal import Journal, Reply

ODD = Reply('ü "x"\u2028')
MEASURED = Reply("e", 0.1 + 0.2, (5, 6), (5, 7))


def test_answers_of_all_processes_are_read_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "new")
    assert journal.read() == {}
    journal.save({3: Reply("a\nb"), 1: ODD}, process=0)
    journal.save({2: Reply("")}, process=1)
    journal.save({5: MEASURED}, process=0)
    replies = {3: Reply("a\nb"), 1: ODD, 2: Reply(""), 5: MEASURED}
    assert Journal(tmp_path / "new").read() == replies


def test_a_truncated_line_loses_its_batch_and_no_other(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.save({1: Reply("a")}, process=0)
    journal.save({2: Reply("bbbbbbbb")}, process=0)
    path = tmp_path / "answers-0.jsonl"
    path.write_bytes(path.read_bytes()[:-6])
    journal.save({3: Reply("c")}, process=0)
    assert journal.read() == {1: Reply("a"), 3: Reply("c")}


def test_a_damaged_answer_is_given_again(tmp_path: Path) -> None:
    Journal(tmp_path).save({1: Reply("yes")}, process=0)
    Journal(tmp_path).save({2: Reply("no")}, process=0)
    path = tmp_path / "answers-0.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"yes"', b'"yea"') + b"[1]\nnull\n\xff\xfe 5")
    assert Journal(tmp_path).read() == {2: Reply("no")}
