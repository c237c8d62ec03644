"""`interlace push`, with the hub's real client, against a hub on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import upload_hub
from click.testing import CliRunner, Result
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars
from upload_hub import READER, WRITER, Hub, Repository

import interlace
from interlace.cli import main
from interlace.model.open import open_model
from interlace.plan.record import Plan, Shortfall

CARD = '---\nlibrary_name: transformers\n---\n\nLoad `Model.from_pretrained("MODEL")`.\n'
SENT = {
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory, dense_dir: Path) -> Path:
    plan = Plan(
        method="manual",
        ratio=0.2,
        n_layers=6,
        drop=[3],
        tune=[4],
        freeze=[0, 1, 2, 5],
        groups=[],
        protected=[],
        shortfall=Shortfall(policy="pairs", wanted=1, triplets=0, pairs=0, missing=0),
        sources={},
    )
    out = tmp_path_factory.mktemp("export") / "pruned"
    interlace.export(dense_dir, plan, out)
    return out


@pytest.fixture
def workspace(tmp_path: Path, pruned: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both checkpoints, each with a card, and things that are nobody else's business."""
    monkeypatch.chdir(tmp_path)
    for which in ("pruned", "tuned"):
        folder = Path("artifacts") / which
        folder.mkdir(parents=True)
        for path in pruned.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / ".model.safetensors.partial").write_bytes(b"half")
        (folder / "model-00003-of-00003.safetensors").write_bytes(b"not in the index")
        (folder / "README.md").write_text("of the base model")
        (folder / "runs").mkdir()
    report = Path("artifacts/report")
    report.mkdir()
    for which in ("pruned", "tuned"):
        (report / f"{which}.md").write_text(f"{CARD}{which}\n")
    return tmp_path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with upload_hub.running() as hub:
        upload_hub.point_client(hub, monkeypatch)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setenv("HF_TOKEN", WRITER)
        disable_progress_bars()
        yield hub
        enable_progress_bars()


def push(*words: str) -> Result:
    return CliRunner().invoke(main, ["push", *words], catch_exceptions=False)


def refused(*words: str) -> str:
    result = push(*words)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_the_tuned_checkpoint_and_its_card_are_uploaded_in_one_commit(
    workspace: Path, hub: Hub
) -> None:
    result = push("me/small")
    repo = hub.repositories["me/small"]
    assert result.exit_code == 0, result.output
    assert result.output.strip() == f"{hub.url}/me/small/commit/{repo.commit_of('main')}"
    files = repo.branches["main"]
    assert set(files) == SENT
    for name in SENT - {"README.md"}:
        assert files[name] == (workspace / "artifacts/tuned" / name).read_bytes()
    assert repo.commits == [("main", "Upload the tuned checkpoint")]
    assert not repo.private


def test_the_card_says_where_it_is_loaded_from(workspace: Path, hub: Hub) -> None:
    push("me/small", "--model", "pruned", "--revision", "p25")
    branch = hub.repositories["me/small"].branches["p25"]
    card = branch["README.md"].decode()
    assert 'from_pretrained("me/small", revision="p25")' in card and card.endswith("pruned\n")
    assert hub.repositories["me/small"].branches["main"] == {}


def test_a_folder_gets_what_would_be_uploaded(workspace: Path, hub: Hub) -> None:
    push("me/small")
    there = hub.repositories["me/small"].branches["main"]
    hub.requests.clear()
    assert push("me/small", "--to", "trial").exit_code == 0
    assert {path.name: path.read_bytes() for path in Path("trial").iterdir()} == there
    assert hub.requests == []


def test_the_folder_loads_without_a_network(workspace: Path) -> None:
    push("me/small", "--to", "trial")
    assert len(open_model("trial", dtype="float32").get_decoder().layers) == 5


def test_what_was_pushed_can_be_fetched_and_loaded(workspace: Path, hub: Hub) -> None:
    from huggingface_hub import snapshot_download

    push("me/small")
    folder = snapshot_download("me/small", cache_dir=workspace / "cache", endpoint=hub.url)
    assert len(open_model(folder, dtype="float32").get_decoder().layers) == 5


def test_weights_from_before_go_and_other_files_stay(workspace: Path, hub: Hub) -> None:
    before = {"model.safetensors": b"old", "NOTES.md": b"mine", "gguf/model.safetensors": b"also"}
    hub.repositories["me/small"] = Repository(branches={"main": dict(before)})
    push("me/small")
    files = hub.repositories["me/small"].branches["main"]
    assert set(files) == SENT | {"NOTES.md", "gguf/model.safetensors"}


def test_a_second_push_sends_no_weights_again(workspace: Path, hub: Hub) -> None:
    push("me/small")
    hub.requests.clear()
    assert push("me/small", "--revision", "again").exit_code == 0
    assert not [request for request in hub.requests if request.startswith("PUT")]


def test_a_private_repository_is_private_from_the_start(workspace: Path, hub: Hub) -> None:
    push("me/small", "--private")
    assert hub.repositories["me/small"].private


def test_nothing_is_sent_to_a_public_repository_that_should_be_private(
    workspace: Path, hub: Hub
) -> None:
    hub.repositories["me/small"] = Repository()
    assert "exists and is public" in refused("me/small", "--private")
    assert hub.repositories["me/small"].branches == {"main": {}}


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("artifacts/tuned/config.json", "no such file"),
        ("artifacts/report/tuned.md", "no such file"),
        ("artifacts/tuned/model-00002-of-00002.safetensors", "copy it again"),
    ],
)
def test_a_missing_artifact_is_named(workspace: Path, hub: Hub, missing: str, message: str) -> None:
    Path(missing).unlink()
    line = refused("me/small")
    assert Path(missing).name in line and message in line
    assert hub.requests == []


def test_a_folder_that_holds_something_is_left_alone(workspace: Path) -> None:
    Path("trial").mkdir()
    Path("trial/mine").write_text("x")
    assert "trial: exists and is not empty" in refused("me/small", "--to", "trial")
    assert [path.name for path in Path("trial").iterdir()] == ["mine"]


@pytest.mark.parametrize("repo", ["small", "me/small/er", "me/-small", "me/a..b"])
def test_a_name_that_is_no_hub_id_is_refused(workspace: Path, hub: Hub, repo: str) -> None:
    assert f"REPO = {repo}: not a hub id" in refused("--", repo)
    assert hub.requests == []


def test_without_a_token_nothing_is_sent(
    workspace: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "run `hf auth login`, or set HF_TOKEN" in refused("me/small")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("token", "message"), [(READER, "may not write there"), ("hf_old", "does not accept the token")]
)
def test_a_token_without_rights_is_refused(
    workspace: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str, message: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert message in refused("me/small")
    assert hub.repositories == {}


def test_offline_nothing_is_sent(
    workspace: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused("me/small")
    assert hub.requests == []


def test_a_hub_that_does_not_answer_is_named(
    workspace: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens
    assert "cannot be reached" in refused("me/small")


@pytest.mark.parametrize(
    ("part", "status", "message"),
    [
        ("/lfs/", 403, "may not write there"),
        ("/commit/", 429, "too many requests"),
        ("/commit/", 413, "the hub answered 413"),
        ("/api/validate-yaml", 400, "Invalid metadata in README.md"),
    ],
)
def test_an_upload_that_fails_commits_nothing(
    workspace: Path, hub: Hub, part: str, status: int, message: str
) -> None:
    hub.answers[part] = (status, {})
    assert message in refused("me/small")
    assert hub.repositories["me/small"].commits == []
