"""Datasets on the Hugging Face Hub as the viewer shows them: metadata at once, each other file when it is looked at."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from blm.hub import first_line
from blm.pages.viewer.dataset import ViewedDataset
from blm.schemas.errors import DatasetError
from blm.schemas.manifest import MANIFEST_FILE

_METADATA = ("meta/*", MANIFEST_FILE)
_REVISIONS = ("v3.0", None)
"""LeRobot tags a dataset with the version of its format; others have a main branch only."""


def hub_metadata(repository: str) -> Path:
    """A folder with the metadata of a dataset on the Hub, in the Hub's own cache.

    Raises:
        DatasetError: the Hub has no such dataset, or cannot be reached and none is in the cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RevisionNotFoundError

    failure: Exception | None = None
    for revision in _REVISIONS:
        try:
            found = snapshot_download(
                repository, repo_type="dataset", revision=revision, allow_patterns=list(_METADATA)
            )
            return Path(found)
        except (RevisionNotFoundError, LocalEntryNotFoundError) as error:
            failure = error
        except Exception as error:  # whatever the network stack raises: it has no common base
            raise _unavailable(f"'{repository}'", error) from error
    assert failure is not None
    raise _unavailable(f"'{repository}'", failure) from failure


def hub_dataset(repository: str, root: Path) -> ViewedDataset:
    """The dataset whose metadata lie in `root` (from `hub_metadata`); raises as `ViewedDataset`."""
    return ViewedDataset(root, repository, partial(_fetch, repository, root.name))


def _fetch(repository: str, commit: str, file: str) -> Any:
    """Bring a file into the folder that the metadata lie in."""
    from huggingface_hub import hf_hub_download

    try:
        return hf_hub_download(repository, file, repo_type="dataset", revision=commit)
    except Exception as error:  # as above
        raise _unavailable(f"{file} of '{repository}'", error) from error


def _unavailable(what: str, error: Exception) -> DatasetError:
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return DatasetError(
            f"{what} is neither a folder nor in the Hub's cache here, and the Hub is switched off (HF_HUB_OFFLINE).",
            "Unset it, or name a folder.",
        )
    return DatasetError(
        f"{what} is no folder here, and the Hub did not give it ({first_line(error, 160)}).",
        "Check the name and the network; for a private one, log in with `hf auth login`.",
    )
