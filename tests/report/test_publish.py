"""`interlace push`, with the hub's real client, against a hub on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import hub as hubs
import pytest
from click.testing import CliRunner, Result
from hub import READER, WRITER, Hub, Repository
from huggingface_hub import (
    EvalResultEntry,
    constants,
    eval_result_entries_to_yaml,
    parse_eval_result_entries,
)
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

from interlace.cli import main
from interlace.model.open import open_model
from interlace.system.documents import as_yaml, parse_yaml

CARD = '---\nlibrary_name: transformers\n---\n\nLoad `Model.from_pretrained("artifacts/{}")`.\n'


@pytest.fixture
def names(tmp_path: Path, pruned_dir: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The files to send of a workspace with both checkpoints, their cards and private things."""
    monkeypatch.chdir(tmp_path)
    Path("artifacts/report").mkdir(parents=True)
    for which in ("pruned", "tuned"):
        folder = shutil.copytree(pruned_dir, f"artifacts/{which}")
        Path(folder, ".model.safetensors.partial").write_bytes(b"half")
        Path(folder, "model-99999-of-99999.safetensors").write_bytes(b"not in the index")
        Path(folder, "README.md").write_text("of the base model")
        Path(folder, "runs").mkdir()
        Path(f"artifacts/report/{which}.md").write_text(f"{CARD.format(which)}{which}\n")
    return {path.name for path in pruned_dir.iterdir() if path.is_file()} | {"README.md"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, names: set[str]) -> Iterator[Hub]:
    with hubs.running(monkeypatch, tmp_path) as hub:
        monkeypatch.setenv("HF_TOKEN", WRITER)
        disable_progress_bars()
        yield hub
        enable_progress_bars()


def push(*words: str) -> Result:
    return CliRunner().invoke(main, ["push", *words], catch_exceptions=False)


def refusal_of(*words: str) -> str:
    result = push(*words)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_the_tuned_checkpoint_and_its_card_are_uploaded_in_one_commit(
    hub: Hub, names: set[str]
) -> None:
    result = push("me/small")
    repo = hub.repositories["me/small"]
    assert result.output.strip() == f"{hub.url}/me/small/commit/{1:040}"
    assert set(repo.branches["main"]) == names
    for name in names - {"README.md"}:
        assert repo.branches["main"][name] == Path("artifacts/tuned", name).read_bytes()
    assert repo.uploads == [("main", "Upload the tuned checkpoint")]
    assert not repo.private


def test_the_card_says_where_it_is_loaded_from(hub: Hub) -> None:
    push("me/small", "--model", "pruned", "--revision", "p25")
    branches = hub.repositories["me/small"].branches
    card = branches["p25"]["README.md"].decode()
    assert 'from_pretrained("me/small", revision="p25")' in card and card.endswith("pruned\n")
    assert branches["main"] == {}


def test_a_folder_gets_what_would_be_uploaded_and_loads(hub: Hub) -> None:
    push("me/small")
    hub.requests.clear()
    push("me/small", "--to", "trial")
    files = {path.name: path.read_bytes() for path in Path("trial").iterdir()}
    assert files == hub.repositories["me/small"].branches["main"]
    assert hub.requests == []
    assert len(open_model("trial", dtype="float32").get_decoder().layers) == 4


def test_old_weights_go_and_other_files_stay(hub: Hub, names: set[str]) -> None:
    old = {"model.safetensors": b"old", "NOTES.md": b"mine", "gguf/model.safetensors": b"also"}
    hub.repositories["me/small"] = Repository(branches={"main": old})
    push("me/small")
    files = hub.repositories["me/small"].branches["main"]
    assert set(files) == names | {"NOTES.md", "gguf/model.safetensors"}


def test_scores_go_along_in_the_hub_s_folder_and_old_ones_of_ours_go(
    hub: Hub, names: set[str]
) -> None:
    for which, value in (("tuned", 81.5), ("pruned", 7)):
        folder = Path("artifacts/report/eval_results", which)
        folder.mkdir(parents=True)
        entry = EvalResultEntry("lmms-lab-encoder/ai2d", "ai2d", value)
        (folder / "ai2d.yaml").write_text(as_yaml(eval_result_entries_to_yaml([entry])))
    theirs = ".eval_results/hle.yaml"
    old = {".eval_results/pope.yaml": b"ours, of other weights", theirs: b"somebody's"}
    hub.repositories["me/small"] = Repository(branches={"main": old})
    push("me/small")
    files = hub.repositories["me/small"].branches["main"]
    assert set(files) == names | {".eval_results/ai2d.yaml", theirs}
    (entry,) = parse_eval_result_entries(parse_yaml(files[".eval_results/ai2d.yaml"].decode(), ""))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("lmms-lab-encoder/ai2d", "ai2d", 81.5)
    push("me/small", "--to", "trial")
    assert Path("trial/.eval_results/ai2d.yaml").read_bytes() == files[".eval_results/ai2d.yaml"]


def test_a_second_push_sends_no_weights_again(hub: Hub) -> None:
    push("me/small")
    hub.requests.clear()
    assert push("me/small", "--revision", "again").exit_code == 0
    assert not [request for request in hub.requests if request.startswith("PUT")]


def test_a_private_repository_is_private_from_the_start(hub: Hub) -> None:
    push("me/small", "--private")
    assert hub.repositories["me/small"].private


def test_nothing_is_sent_to_a_public_repository_that_should_be_private(hub: Hub) -> None:
    hub.repositories["me/small"] = Repository()
    assert "exists and is public" in refusal_of("me/small", "--private")
    assert hub.repositories["me/small"].branches == {"main": {}}


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("artifacts/tuned/config.json", "no such file"),
        ("artifacts/report/tuned.md", "no such file"),
        ("artifacts/tuned/model-00002-of-*.safetensors", "copy it again"),
    ],
)
def test_a_missing_artifact_is_named(hub: Hub, file: str, message: str) -> None:
    (path,) = Path().glob(file)
    path.unlink()
    line = refusal_of("me/small")
    assert path.name in line and message in line
    assert hub.requests == []


def test_a_folder_that_holds_something_is_left_alone(names: set[str]) -> None:
    Path("trial").mkdir()
    Path("trial/mine").write_text("x")
    assert "trial: exists and is not empty" in refusal_of("me/small", "--to", "trial")
    assert [path.name for path in Path("trial").iterdir()] == ["mine"]


@pytest.mark.parametrize("repo", ["small", "me/-small"])
def test_a_name_that_is_no_hub_id_is_refused(hub: Hub, repo: str) -> None:
    assert f"REPO = {repo}: not a hub id" in refusal_of("--", repo)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("", "run `hf auth login`, or set HF_TOKEN"),
        (READER, "may not write there"),
        ("hf_old", "does not accept the token"),
    ],
)
def test_a_token_without_rights_is_refused(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str, message: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert message in refusal_of("me/small")
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("constant", "value", "message"),
    [
        ("HF_HUB_OFFLINE", True, "HF_HUB_OFFLINE is set"),
        ("ENDPOINT", "http://127.0.0.1:9", "cannot be reached"),  # nothing listens
    ],
)
def test_without_a_connection_nothing_is_sent(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, constant: str, value: object, message: str
) -> None:
    monkeypatch.setattr(constants, constant, value)
    assert message in refusal_of("me/small")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("/lfs/", 403, "may not write there"),
        ("/commit/", 429, "too many requests"),
        ("/commit/", 413, "the hub answered 413"),
        ("/api/validate-yaml", 400, "Invalid metadata in README.md"),
    ],
)
def test_an_upload_that_fails_commits_nothing(
    hub: Hub, text: str, status: int, message: str
) -> None:
    hub.fail(text, status)
    assert message in refusal_of("me/small")
    assert hub.repositories["me/small"].uploads == []
