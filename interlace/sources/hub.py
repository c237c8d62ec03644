"""Talk to the hub: snapshots, and its errors in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from interlace.errors import InputError

FOREIGN = ["*.bin", "*.pt", "*.pth", "*.msgpack", "*.h5", "*.onnx"]  # weights that nothing reads


def hub_snapshot(source: str, revision: str | None, field: str, patterns: list[str] | None) -> Path:
    """Fetch a model's repository, or take it from the hub's cache.

    Args:
        source: hub id.
        revision: branch, tag or commit; `None`: the newest.
        field: the section of the parameters that names the source.
        patterns: files to fetch; `None`: all but pickled and foreign weights.

    Returns:
        The folder of the snapshot, named by its commit.

    Raises:
        InputError: see `hub_errors`.
    """
    from huggingface_hub import snapshot_download

    with hub_errors(f"{field}.id", source, revision):
        return Path(
            snapshot_download(
                source, revision=revision, allow_patterns=patterns, ignore_patterns=FOREIGN
            )
        )


@contextmanager
def hub_errors(field: str, source: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub's clients raise into one line.

    Args:
        field: the parameter that named the source.
        source: hub id.
        revision: as the parameters name it.

    Raises:
        InputError: what is wrong, and the way out.
    """
    from huggingface_hub import errors

    where = f"{field} = {source}" + (f" (revision {revision})" if revision else "")
    try:
        yield
    except errors.GatedRepoError:
        raise InputError(
            f"{where}: access is restricted; ask for it on the hub, then run `hf auth login`"
        ) from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise InputError(f"{where}: no such repository, and no such local path") from None
    except errors.RevisionNotFoundError:
        raise InputError(f"{where}: the repository has no such revision") from None
    except errors.HfHubHTTPError as error:
        raise InputError(
            f"{where}: the hub answered {error.response.status_code}; try again later, and log in"
            " with `hf auth login` where it asks for that or limits your rate"
        ) from None
    except (errors.OfflineModeIsEnabled, errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        raise InputError(
            f"{where}: not a local path, and the hub cannot be reached ({type(error).__name__});"
            " connect, or point the parameter at a local copy"
        ) from None
