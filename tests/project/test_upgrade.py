"""`interlace upgrade`: the package's changes of dvc.yaml, joined with the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from interlace.cli import main
from interlace.project import upgrade
from interlace.project.upgrade import compare
from interlace.system.documents import as_yaml, read_yaml

OLD = """\
# of the package
stages:
  first:
    cmd: python -m first
    deps: [a, b]  # in order
  second:
    cmd: python -m second
    outs:
      - c: {cache: false}
plots:
  - x.csv
"""
NEW = OLD.replace("[a, b]", "[a, d]").replace("m second", "m second --more")
NEW = NEW.replace("plots:", "  third:\n    cmd: python -m third  # new\nplots:")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of the old version."""
    monkeypatch.chdir(tmp_path)
    Path(".dvc").mkdir()
    Path(".dvc/interlace.yaml").write_text(OLD)
    Path("dvc.yaml").write_text(OLD)
    monkeypatch.setattr(upgrade, "pipeline_text", lambda: NEW)
    return tmp_path


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["upgrade", *words])
    assert result.exit_code == code, result.output
    return result.output


def test_it_says_what_changed_and_writes_nothing() -> None:
    assert run().splitlines() == [
        "+ third: a new stage",
        "~ first.deps: - b, + d",
        "~ second.cmd: python -m second -> python -m second --more",
    ]
    assert Path("dvc.yaml").read_text() == OLD


def test_an_unchanged_pipeline_is_replaced_to_the_byte() -> None:
    run("--write")
    assert Path("dvc.yaml").read_text() == NEW == Path(".dvc/interlace.yaml").read_text()
    assert run() == "dvc.yaml: up to date with the installed package\n"


def test_the_users_own_additions_and_comments_stay() -> None:
    text = OLD.replace("[a, b]", "[a, b, mine]").replace("# of the package", "# of mine")
    Path("dvc.yaml").write_text(text + "  - mine.csv\nvars: [mine.yaml]\n")
    assert "  first.deps: your own, kept" in run().splitlines()
    run("--write")
    document = read_yaml(Path("dvc.yaml"))
    assert document["stages"]["first"]["deps"] == ["a", "d", "mine"]
    assert document["plots"] == ["x.csv", "mine.csv"] and document["vars"] == ["mine.yaml"]
    assert document["stages"]["third"] == {"cmd": "python -m third"}
    assert document["stages"]["second"] == {
        **{"cmd": "python -m second --more", "outs": [{"c": {"cache": False}}]},
    }
    assert Path("dvc.yaml").read_text().startswith("# of mine\n")
    assert "up to date" in run()


def test_what_both_changed_is_refused(project: Path) -> None:
    text = OLD.replace("m second", "m mine")
    Path("dvc.yaml").write_text(text)
    line = run("--write", code=2).splitlines()[-1]
    assert line.startswith("error: dvc.yaml: second.cmd: changed by you and by the package")
    assert Path("dvc.yaml").read_text() == text


def test_a_stage_that_is_gone_goes_unless_the_user_changed_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shorter = OLD.replace(OLD[OLD.index("  second") : OLD.index("plots")], "")
    monkeypatch.setattr(upgrade, "pipeline_text", lambda: shorter)
    Path("dvc.yaml").write_text(OLD.replace("python -m first", "python -m mine"))
    assert run("--write").splitlines()[0] == "- second: the stage is gone"
    assert list(read_yaml(Path("dvc.yaml"))["stages"]) == ["first"]
    Path(".dvc/interlace.yaml").write_text(OLD)
    Path("dvc.yaml").write_text(OLD.replace("    outs:", "    frozen: true\n    outs:"))
    assert "second.frozen" in run("--write", code=2).splitlines()[-1]


def test_without_the_version_it_began_with_nothing_is_written() -> None:
    Path(".dvc/interlace.yaml").unlink()
    assert "+ third: a new stage" in run()
    assert "cannot be told" in run("--write", code=2)
    assert Path("dvc.yaml").read_text() == OLD


@pytest.mark.parametrize("text", [None, "", "stages: 3", "a: [", "[]"])
def test_a_file_that_is_no_pipeline_is_named(text: str | None) -> None:
    Path("dvc.yaml").unlink()
    if text is not None:
        Path("dvc.yaml").write_text(text)
    output = run(code=2)
    assert output.startswith("error: dvc.yaml: ") and len(output.splitlines()) == 1


VALUES = st.sampled_from(["x", "y"]) | st.lists(st.sampled_from("abc"), unique=True)
STAGES = st.dictionaries(
    st.sampled_from("pq"), st.dictionaries(st.sampled_from("kl"), VALUES, min_size=1)
)
PIPELINES = STAGES.map(lambda stages: {"stages": stages})


@given(PIPELINES, PIPELINES, PIPELINES)
def test_an_upgrade_keeps_what_only_one_side_changed(base: Any, mine: Any, theirs: Any) -> None:
    assert not compare(base, mine, mine).package
    assert not compare(base, mine, base).package and not compare(base, mine, base).conflicts
    ours = compare(base, base, theirs)
    assert not ours.user and not ours.conflicts
    text = upgrade._changed(as_yaml(base), ours.package, as_yaml(theirs))
    assert read_stages(text) == {name: keys for name, keys in theirs["stages"].items() if keys}


def read_stages(text: str) -> Any:
    from interlace.system.documents import parse_yaml

    return (parse_yaml(text, "text") or {}).get("stages") or {}
