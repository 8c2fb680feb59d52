"""Media that rows name by web address, fetched once into a cache; only where the build allows it.

    address ─▶ scheme, host, port allowed? ─▶ resolved: public? ─▶ connection to that very address ─▶ size, type, time
            ─▶ cache/media/<sha256>, cache/addresses/<sha256 of the address>.json

An address of a private, loopback or link-local network is asked only where `hosts` lists it as such, whatever name led
there. Redirects are followed to the same host, or to one that `hosts` lists, and pass the same checks. Proxies are not
used. What is in the cache is not asked for again, so a build is repeated without a connection, to the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http.client import HTTPException, HTTPResponse
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urljoin, urlsplit

from pydantic import Field

from blm.curate.corpus.connection import CheckedConnection
from blm.curate.shards import file_sha256
from blm.schemas.manifest import write_atomically
from blm.schemas.yaml_model import FrozenModel

_SCHEMES = {"http": 80, "https": 443}
_LONGEST_ADDRESS = 4096
_REDIRECTS = 3
_REDIRECT_STATUS = (301, 302, 303, 307, 308)
_CHUNK_BYTES = 64 * 1024
_PUBLIC_IPV6 = IPv6Network("2000::/3")
_UNTOLD_TYPES = ("", "application/octet-stream", "binary/octet-stream")

Kind = Literal["image", "video"]


class Download(FrozenModel):
    """What may be fetched where `allow_download` is set."""

    hosts: tuple[str, ...] = Field(
        default=(),
        description="that may be asked: names, patterns such as *.example.org, or addresses; none: any public host",
    )
    max_file_bytes: int = Field(default=32 * 1024 * 1024, ge=1)
    max_total_bytes: int = Field(default=10 * 1024**3, ge=1, description="of all that a build uses")
    timeout_s: float = Field(default=30, gt=0, description="per file, from connecting to the last byte")
    cache: Path | None = Field(
        default=None, description="folder; default: blm/media in the user's cache folder"
    )


class DownloadError(Exception):
    """An address whose content cannot be used, with the reason."""

    def __init__(self, reason: str, note: str) -> None:
        super().__init__(note)
        self.reason = reason


@dataclass(frozen=True)
class Fetched:
    """A content in the cache, and the file that says which address it is of."""

    file: Path
    address_file: Path
    size: int


@dataclass(frozen=True)
class _Target:
    """An address that was taken apart and may be asked."""

    scheme: str
    host: str
    port: int
    path: str


def is_web_address(name: str) -> bool:
    """Whether a reference is an http or https address."""
    return name[:8].lower().startswith(("http://", "https://"))


class Downloads:
    """The web media of one build: each address is fetched once, and answered the same way throughout."""

    def __init__(self, settings: Download) -> None:
        self._settings = settings
        self._cache = settings.cache or _user_cache()
        self._known: dict[str, Fetched | DownloadError] = {}
        self._used_bytes = 0

    @property
    def folder(self) -> Path:
        """The cache."""
        return self._cache

    def file(self, address: str, kind: Kind) -> Fetched:
        """The content of an address.

        Raises:
            DownloadError: 'address_refused', 'download_failed', 'media_too_large', 'wrong_type' or 'download_budget'.
        """
        address = address.partition("#")[0]
        if address not in self._known:
            self._known[address] = self._answer(address, kind)
        found = self._known[address]
        if isinstance(found, DownloadError):
            raise DownloadError(found.reason, str(found))
        return found

    def _answer(self, address: str, kind: Kind) -> Fetched | DownloadError:
        settings = self._settings
        try:
            target = _target(address, settings.hosts)
            fetched = self._cached(address) or self._fetch(address, target, kind)
            if fetched.size > settings.max_file_bytes:
                raise _too_large(settings.max_file_bytes)
            if self._used_bytes + fetched.size > settings.max_total_bytes:
                raise self._over_budget()
        except DownloadError as error:
            return error
        self._used_bytes += fetched.size
        return fetched

    def _cached(self, address: str) -> Fetched | None:
        address_file = self._address_file(address)
        try:
            known = json.loads(address_file.read_bytes())
            file = self._cache / "media" / known["sha256"]
            if known["address"] == address and file_sha256(file) == known["sha256"]:
                return Fetched(file, address_file, file.stat().st_size)
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return None

    def _over_budget(self) -> DownloadError:
        return DownloadError(
            "download_budget", f"would pass the {self._settings.max_total_bytes} bytes of a build"
        )

    def _fetch(self, address: str, target: _Target, kind: Kind) -> Fetched:
        allowance = min(self._settings.max_file_bytes, self._settings.max_total_bytes - self._used_bytes)
        if not allowance:
            raise self._over_budget()
        try:
            content = self._content(target, kind, allowance)
        except DownloadError as error:
            too_large = error.reason == "media_too_large" and allowance < self._settings.max_file_bytes
            raise self._over_budget() if too_large else error from error
        except (OSError, HTTPException, ValueError) as error:
            raise DownloadError("download_failed", f"{type(error).__name__}: {error}"[:200]) from error
        sha256 = hashlib.sha256(content).hexdigest()
        file, address_file = self._cache / "media" / sha256, self._address_file(address)
        for folder in (file.parent, address_file.parent):
            folder.mkdir(parents=True, exist_ok=True)
        if not file.exists() or file_sha256(file) != sha256:
            write_atomically(file, content)
        said = json.dumps({"address": address, "sha256": sha256}, sort_keys=True)
        write_atomically(address_file, said.encode())
        return Fetched(file, address_file, len(content))

    def _content(self, target: _Target, kind: Kind, allowance: int) -> bytes:
        settings = self._settings
        for _ in range(_REDIRECTS + 1):
            addresses = _checked_addresses(target, settings.hosts)
            with CheckedConnection(
                target.scheme, target.host, target.port, addresses, settings.timeout_s
            ) as asked:
                answer = asked.get(target.path)
                if answer.status not in _REDIRECT_STATUS:
                    _check_answer(answer, kind)
                    return _body(answer, allowance)
                target = _redirected(target, answer.getheader("Location") or "", settings.hosts)
        raise DownloadError("address_refused", f"more than {_REDIRECTS} redirects")

    def _address_file(self, address: str) -> Path:
        name = hashlib.sha256(address.encode(errors="surrogatepass")).hexdigest()
        return self._cache / "addresses" / f"{name}.json"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "blm" / "media"


def _refused(note: str) -> DownloadError:
    return DownloadError("address_refused", note)


def _target(address: str, hosts: tuple[str, ...]) -> _Target:
    """The address taken apart, if its scheme, host and port may be asked."""
    if len(address) > _LONGEST_ADDRESS:
        raise _refused(f"an address of {len(address)} characters")
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
        if not _is_ip(host):
            host = host.encode("idna").decode().lower()
        port = parts.port or _SCHEMES.get(parts.scheme, 0)
        path = quote(parts.path or "/", safe="/%:=&~+!$,;'@()*[]")
        query = f"?{quote(parts.query, safe='/%:=&~+!$,;@()*[]?')}" if parts.query else ""
    except (ValueError, UnicodeError) as error:
        raise _refused(f"{address!r:.200}: {error}") from error
    if not host or parts.scheme not in _SCHEMES or parts.username is not None or parts.password is not None:
        raise _refused(f"{address!r:.200} is no https address of a host")
    listed = _is_listed(host, hosts)
    if hosts and not listed:
        raise _refused(f"host {host} is not among download.hosts")
    if parts.scheme == "http" and not (listed and _is_ip(host) and ip_address(host).is_loopback):
        raise _refused(f"{address!r:.200} is not https")
    if port != _SCHEMES[parts.scheme] and not listed:
        raise _refused(f"port {port} of a host that download.hosts does not list")
    return _Target(parts.scheme, host, port, path + query)


def _is_listed(host: str, hosts: tuple[str, ...]) -> bool:
    return any(fnmatchcase(host, pattern.lower()) for pattern in hosts)


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _checked_addresses(target: _Target, hosts: tuple[str, ...]) -> list[str]:
    """What the host's name resolves to, if all of it may be asked."""
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(one[4][0]).partition("%")[0] for one in found))
    for address in addresses:
        if not is_public(ip_address(address)) and address not in hosts:
            raise _refused(f"{target.host} leads to {address}, which is not a public address")
    return addresses


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is of the public internet, also by none of the ways to write an IPv4 address as IPv6."""
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast
    wrapped = address.sixtofour or address.teredo
    return address.is_global and address in _PUBLIC_IPV6 and not wrapped


def _redirected(target: _Target, location: str, hosts: tuple[str, ...]) -> _Target:
    there = urljoin(f"{target.scheme}://{_in_address(target.host)}:{target.port}{target.path}", location)
    found = _target(there, hosts)
    if found.host != target.host and not _is_listed(found.host, hosts):
        raise _refused(f"redirects from {target.host} to {found.host}")
    return found


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _check_answer(answer: HTTPResponse, kind: Kind) -> None:
    if answer.status != 200:
        raise DownloadError("download_failed", f"status {answer.status}")
    said = (answer.getheader("Content-Type") or "").partition(";")[0].strip().lower()
    if said not in _UNTOLD_TYPES and not said.startswith(f"{kind}/"):
        raise DownloadError("wrong_type", f"{said!r:.80}, not {kind}")
    packed = (answer.getheader("Content-Encoding") or "identity").strip().lower()
    if packed != "identity":
        raise DownloadError("wrong_type", f"packed as {packed!r:.40}")


def _body(answer: HTTPResponse, allowance: int) -> bytes:
    """The whole content, no more of it than the limit held at any time."""
    promised = answer.length
    if promised is not None and promised > allowance:
        raise _too_large(allowance)
    parts: list[bytes] = []
    size = 0
    while chunk := answer.read(_CHUNK_BYTES):
        parts.append(chunk)
        size += len(chunk)
        if size > allowance:
            raise _too_large(allowance)
    if promised is not None and size < promised:
        raise DownloadError("download_failed", f"{size} of {promised} bytes arrived")
    return b"".join(parts)


def _too_large(limit: int) -> DownloadError:
    return DownloadError("media_too_large", f"more than {limit} bytes")
