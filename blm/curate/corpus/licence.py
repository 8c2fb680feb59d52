"""Which licences a corpus may hold."""

from __future__ import annotations

from fnmatch import fnmatchcase

from pydantic import Field

from blm.schemas.yaml_model import FrozenModel


class Licences(FrozenModel):
    """Patterns of licence names, e.g. 'cc-by-*'. Case, blanks and underscores do not count."""

    allow: tuple[str, ...] = Field(default=("*",), description="at least one must fit")
    deny: tuple[str, ...] = Field(default=(), description="none may fit; wins over `allow`")


def licence_objection(licence: str, wanted: Licences) -> str | None:
    """Why conversations under this licence are left out, or None."""
    name = _plain(licence)
    for pattern in wanted.deny:
        if fnmatchcase(name, _plain(pattern)):
            return f"'{licence}' is denied by '{pattern}'"
    if any(fnmatchcase(name, _plain(pattern)) for pattern in wanted.allow):
        return None
    return f"'{licence}' is none of {', '.join(wanted.allow)}"


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "-").replace("_", "-")
