from __future__ import annotations

from pathlib import Path

from interlace.evaluation.run.journal import Journal


def test_answers_of_all_processes_are_read_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "new")
    assert journal.read() == {}
    journal.save({3: "a\nb", 1: 'ü "x"\u2028'}, process=0)
    journal.save({2: ""}, process=1)
    journal.save({5: "e"}, process=0)
    assert Journal(tmp_path / "new").read() == {3: "a\nb", 1: 'ü "x"\u2028', 2: "", 5: "e"}


def test_a_truncated_line_loses_its_batch_and_no_other(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.save({1: "a"}, process=0)
    journal.save({2: "bbbbbbbb"}, process=0)
    path = tmp_path / "answers-0.jsonl"
    path.write_bytes(path.read_bytes()[:-6])
    journal.save({3: "c"}, process=0)
    assert journal.read() == {1: "a", 3: "c"}


def test_a_damaged_answer_is_given_again(tmp_path: Path) -> None:
    Journal(tmp_path).save({1: "yes"}, process=0)
    Journal(tmp_path).save({2: "no"}, process=0)
    path = tmp_path / "answers-0.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"yes"', b'"yea"') + b"[1]\nnull\n\xff\xfe 5")
    assert Journal(tmp_path).read() == {2: "no"}
