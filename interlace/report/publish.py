"""A checkpoint and its model card -> a repository on the hub, or a folder with the same files.

Nothing is sent unless it is asked for, and nothing but the checkpoint's own files, the card and the
scores.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from interlace.errors import InputError, MissingInputError
from interlace.evaluation.benchmarks.catalogue import BENCHMARKS
from interlace.report.card.eval_results import FOLDER, file_name
from interlace.report.facts.inputs import Workspace, changed_since_report, remedy
from interlace.report.facts.run import Which, loaded_from
from interlace.system.outputs import whole

Files = Mapping[str, Path | bytes]  # what lies where in the repository

CARD = "README.md"
HUB_RESULTS = ".eval_results"  # the hub's folder of evaluation results
_WEIGHTS = (".safetensors", ".safetensors.index.json")


def files_to_publish(
    artifacts: Path, which: Which, repo: str, revision: str | None = None
) -> dict[str, Path | bytes]:
    """Return the files of a checkpoint, its card and its scores, by their names in the repository.

    Args:
        artifacts: holds `pruned` and `tuned`, and `report` with a card for each, and with scores in
            the hub's format where there are any.
        which: the checkpoint.
        repo: hub id; the card's example loads from it.
        revision: branch; None: main.

    Raises:
        InputError: the checkpoint or its card is missing, or weights that its index names are; the
            card is of another run; `repo` is no hub id.
    """
    from huggingface_hub import errors
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    from interlace.checkpoint.companions import TEMPLATES
    from interlace.checkpoint.safetensors import tensor_files

    try:
        validate_repo_id(repo)
    except errors.HFValidationError:
        raise InputError(f"REPO = {repo}: not a hub id; write NAMESPACE/NAME") from None
    folder, card = artifacts / which, artifacts / "report" / f"{which}.md"
    for path in (folder / "config.json", card):
        if not path.is_file():
            raise MissingInputError(path)
    weights = set(tensor_files(folder).values())
    files: dict[str, Path | bytes] = {
        path.relative_to(folder).as_posix(): path
        for path in sorted([*folder.iterdir(), *(folder / TEMPLATES).glob("*.jinja")])
        if path in weights or (path.suffix != ".safetensors" and _is_open_file(path))
    }
    workspace = Workspace(artifacts, artifacts.parent / "metrics", artifacts.parent / "data")
    if reason := changed_since_report(workspace):
        raise InputError(f"{card}: may be of another run: {reason}; {remedy()}")
    address = f'"{repo}"' + (f", revision={json.dumps(revision)}" if revision else "")
    loading = f"from_pretrained({loaded_from(which)}"
    text = card.read_text(encoding="utf-8")
    text = text.replace(loading, f"from_pretrained({address}")
    scores = sorted((artifacts / "report" / FOLDER / which).glob("*.yaml"))
    files |= {f"{HUB_RESULTS}/{path.name}": path for path in scores}
    return files | {CARD: text.encode()}


def _is_open_file(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def write_to(files: Files, folder: Path) -> None:
    """Write the files to a local folder instead: what would be uploaded, to look at and to load.

    Raises:
        InputError: the folder exists and is not empty.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder}: exists and is not empty; choose another folder for --to")
    with whole(folder) as partial:
        partial.mkdir()
        for name, source in files.items():
            (partial / name).parent.mkdir(exist_ok=True)
            if isinstance(source, bytes):
                (partial / name).write_bytes(source)
            else:
                shutil.copyfile(source, partial / name)


def push(
    files: Files, repo: str, *, private: bool = False, revision: str | None = None, message: str
) -> str:
    """Upload the files in one commit; the repository is made if there is none.

    Weights and scores of ours that the repository holds from before and that are not among the
    files are deleted in the same commit: transformers would load an old model.safetensors in place
    of new shards, and a leaderboard would show another model's score. Other files stay.

    Args:
        files: what to upload.
        repo: hub id, `namespace/name`.
        private: make a new repository private; one that exists has to be.
        revision: branch to commit to, made from main if there is none; None: main.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        InputError: no token, no rights, no network, offline, or a name that is not a hub id.
    """
    from huggingface_hub import HfApi, get_token

    if repo.count("/") != 1:
        raise InputError(f"REPO = {repo}: not a hub id; write NAMESPACE/NAME")
    if get_token() is None:
        raise InputError("no token for the hub: run `hf auth login`, or set HF_TOKEN")
    api = HfApi()
    with _one_line(repo, revision):
        api.create_repo(repo, private=True if private else None, exist_ok=True)
        if private and not api.model_info(repo).private:
            raise InputError(
                f"{repo}: exists and is public; make it private in its settings, or leave out"
                " --private"
            )
        if revision:
            api.create_branch(repo, branch=revision, exist_ok=True)
        operations = _operations(files, api.list_repo_files(repo, revision=revision))
        commit = api.create_commit(repo, operations, commit_message=message, revision=revision)
    return commit.commit_url


def _operations(files: Files, remote_files: Iterable[str]) -> list[Any]:
    """Add all files, and delete weights and scores of an earlier commit that are not among them."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    adds = [
        CommitOperationAdd(name, source if isinstance(source, bytes) else str(source))
        for name, source in files.items()
    ]
    our_scores = {f"{HUB_RESULTS}/{file_name(benchmark)}" for benchmark in BENCHMARKS.values()}
    old_files = [
        name
        for name in remote_files
        if name not in files
        and ((name.endswith(_WEIGHTS) and "/" not in name) or name in our_scores)
    ]
    return [*adds, *map(CommitOperationDelete, old_files)]


@contextmanager
def _one_line(repo: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub's client raises into one line with the way out."""
    from huggingface_hub import errors

    # the HTTP library's own error, raised where nothing answers: which library, the client says
    not_reached: Any = errors.HfHubHTTPError.__bases__[0]
    where = repo + (f" (revision {revision})" if revision else "")
    try:
        yield
    except errors.HFValidationError:
        raise InputError(f"REPO = {repo}: not a hub id; write NAMESPACE/NAME") from None
    except errors.OfflineModeIsEnabled:
        raise InputError(
            f"{where}: HF_HUB_OFFLINE is set, so nothing is sent; unset it, or write to a folder"
            " with --to"
        ) from None
    except errors.HfHubHTTPError as error:
        raise InputError(_answered(where, error)) from None
    except (not_reached, OSError) as error:
        raise InputError(
            f"{where}: the hub cannot be reached ({type(error).__name__}); connect, or write to a"
            " folder with --to"
        ) from None
    except RuntimeError as error:  # a file whose upload broke off
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            raise InputError(_answered(where, error.__cause__)) from None
        reason = " ".join(f"{error} {error.__cause__ or ''}".split())
        raise InputError(f"{where}: nothing was committed: {reason}") from None
    except ValueError as error:  # a card that the hub does not accept
        reason = " ".join(str(error).split())
        raise InputError(f"{where}: nothing was committed: {reason}") from None


def _answered(where: str, error: Any) -> str:
    """Explain an answer of the hub to somebody who uploads."""
    server_message = " ".join(str(error.server_message or "").split())
    status = error.response.status_code
    reasons = {
        401: "the hub does not accept the token; run `hf auth login` with one that may write",
        403: "the token may not write there; use one with write access to the namespace",
        404: "no such namespace, repository or branch; check the name and the token's access",
        429: "too many requests; wait some minutes and run it again",
    }
    reason = reasons.get(status, f"the hub answered {status}")
    return f"{where}: {reason}" + (f" ({server_message})" if server_message else "")
