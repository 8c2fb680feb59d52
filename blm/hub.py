"""The Hugging Face Hub: how names on it look, whether an upload is possible, and what went wrong if it was not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blm.schemas.errors import DatasetError, UsageError

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def check_can_push(repository: str) -> None:
    """Complain now rather than after an hour of work.

    Raises:
        UsageError: the name is not ORG/NAME.
        DatasetError: nobody is logged in to the Hub, or it is switched off here.
    """
    if not HUB_NAME.fullmatch(repository):
        raise UsageError(
            f"'{repository}' is not a name on the Hub.",
            "A name is ORG/NAME, for example my-lab/so100-pick-cube.",
        )
    from huggingface_hub import constants, get_token

    if constants.is_offline_mode():
        raise DatasetError("the Hub is switched off here (HF_HUB_OFFLINE).", "Unset it to upload.")
    if not get_token():
        raise DatasetError(
            "nobody is logged in to the Hub.",
            "Log in with `hf auth login`, or set HF_TOKEN to a token that may write.",
        )


def first_line(error: Exception, most: int = 200) -> str:
    """What the network stack raised, by its type and the first line of what it says, of which at most so much."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:most] if lines else 'no reason given'}"


@contextmanager
def explained_upload(folder: Path, repository: str) -> Iterator[None]:
    """Whatever the network stack raises, as one kind of error; it has no common base."""
    try:
        yield
    except Exception as error:
        raise DatasetError(
            f"{repository} could not be uploaded ({first_line(error)}).",
            f"All is whole in {folder}; when the Hub can be reached: blm push {folder} {repository}",
        ) from error
