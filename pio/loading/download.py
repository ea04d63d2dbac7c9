"""Fetching a model from a Hugging Face hub into the local cache."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any, NoReturn, cast

from pio.errors import CancelledError, CheckpointError
from pio.loading.hub_cache import cache_folder, is_complete, is_repo_id
from pio.progress.stream import ForgivingStream, is_terminal
from pio.shelter import import_whole, interruptible
from pio.system import HERE

SMALL_FILES = ["*.json", "*.jinja", "merges.txt", "vocab.txt", "LICENSE*"]
WEIGHT_FILES = ["*.safetensors"]


def download(
    repo: str, *, revision: str | None = None, progress: bool | None = None, endpoint: str | None = None
) -> Path:
    """Fetch what pio reads of a repo, and return its folder in the local Hugging Face cache.

    Files that the cache holds already are not fetched again. An interrupted download is taken up where it ended, and
    until it is complete the model is not found. An exception that ends the wait for it is raised at once, and what is
    being fetched then ends with its next piece.

    Args:
        repo: ``org/name``.
        revision: A branch, tag or commit; the default is ``main``.
        progress: Whether to draw progress bars on standard error; by default only on a terminal.
        endpoint: Base address of the hub, when it is not huggingface_hub's default.

    Raises:
        CheckpointError: No such repo or revision, no permission, no connection, no disk space, or no safetensors in it.
    """
    if not isinstance(cast("object", repo), str) or not is_repo_id(repo) or "@" in repo:
        raise CheckpointError(
            f"{repr(repo)[:200]} is no repo id; it has the form 'org/name', such as 'Qwen/Qwen3-0.6B'"
        )
    hub: Any = import_whole("huggingface_hub")
    waiting = [True]
    options: dict[str, Any] = {
        "cache_dir": cache_folder(),
        "endpoint": endpoint,
        "tqdm_class": _bars(progress, waiting),
        "ignore_patterns": ["*/*"],
    }

    def fetch() -> Path:
        # Weights come last and at the commit of the rest: a snapshot with all its weights is a whole one.
        small = Path(hub.snapshot_download(repo, revision=revision, allow_patterns=SMALL_FILES, **options))
        if not (small / "config.json").is_file():
            raise CheckpointError(
                f"{repo} holds no config.json, so it is no model that pio can read; choose another repo"
            )
        return Path(hub.snapshot_download(repo, revision=small.name, allow_patterns=WEIGHT_FILES, **options))

    try:
        folder = interruptible(fetch)  # the library itself would wait until every file that has begun is there
    except CheckpointError:
        raise
    except Exception as error:
        _explain(repo, revision, error)
    finally:
        waiting.clear()
    if not is_complete(folder):
        raise CheckpointError(
            f"{repo} holds no complete set of *.safetensors, the only weights that pio reads; choose another repo, "
            "or a revision that was converted to safetensors"
        )
    return folder


def _bars(progress: bool | None, waiting: list[bool]) -> type[Any]:
    """Return progress bars that end what they show where nobody waits for it any more.

    Args:
        progress: As ``download`` has it.
        waiting: Empty where nobody waits.
    """
    from huggingface_hub.utils import tqdm  # pyright: ignore[reportUnknownVariableType, reportPrivateImportUsage]

    base: Any = tqdm

    wanted = is_terminal(sys.stderr) if progress is None else progress

    class Bars(base):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs["disable"], kwargs["file"] = not wanted, ForgivingStream(sys.stderr)
            base.__init__(self, *args, **kwargs)

        def update(self, n: Any = 1) -> Any:
            if not waiting:
                raise CancelledError("an exception ended the wait for this download; run it again to resume")
            return base.update(self, n)

    return Bars


def _explain(repo: str, revision: str | None, error: Exception) -> NoReturn:
    """Raise the CheckpointError that says what went wrong in a download and what to do about it."""
    from huggingface_hub import errors

    at = f"{repo} at revision {revision}" if revision else repo
    chain: list[BaseException] = [error]
    while (following := chain[-1].__cause__ or chain[-1].__context__) is not None and len(chain) < 20:
        chain.append(following)
    if any(isinstance(link, errors.GatedRepoError) for link in chain):
        problem = "its owner restricts access: accept the terms on the model's page, then run hf auth login"
    elif any(isinstance(link, errors.RevisionNotFoundError) for link in chain):
        problem = "the repo has no such revision: leave it out for the newest, or name a branch, tag or commit"
    elif any(isinstance(link, errors.RepositoryNotFoundError) for link in chain):
        problem = "there is no such repo, or it is private: correct the name, or run hf auth login"
    elif any(isinstance(link, errors.OfflineModeIsEnabled) for link in chain):
        problem = "HF_HUB_OFFLINE forbids downloads: unset it"
    elif any(isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT) for link in chain):
        problem = f"the disk of {cache_folder()} is full: free space, or set HF_HOME to a folder on another disk"
    elif denied := next((link for link in chain if isinstance(link, PermissionError)), None):
        path = str(denied.filename or cache_folder())
        why = HERE.file_problem(path, denied, writing=True)
        problem = (
            f"{path}: {why}" if why else f"{cache_folder()} cannot be written: set HF_HOME to a folder that you own"
        )
    else:
        first_line = str(chain[-1]).strip().partition("\n")[0]
        reason = f"{type(chain[-1]).__name__}: {first_line[:200]}"
        problem = f"the hub did not deliver it ({reason}): check the connection and run the download again to resume"
    raise CheckpointError(f"cannot download {at}: {problem}") from error
