"""Media from the web: refused unless allowed, bounded in every way, fetched once, the same without a connection."""

import json
import socket
from ipaddress import ip_address

import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from blm.cli import app
from blm.curate.corpus.build import build_corpus
from blm.curate.corpus.connection import CheckedConnection
from blm.curate.corpus.download import Download, DownloadError, Downloads, is_public, is_web_address
from blm.schemas.errors import OutputExistsError
from tests.curate.corpus.test_build import config_for, content_of
from tests.curate.corpus.web import PICTURE, serve


@pytest.fixture(scope="module")
def site():
    with serve() as (address, asked):
        yield address, asked


def downloads(folder, **settings) -> Downloads:
    return Downloads(Download(**{"hosts": ("127.0.0.1",), "cache": folder, "timeout_s": 5.0} | settings))


def reason(made: Downloads, address: str) -> tuple[str, str]:
    with pytest.raises(DownloadError) as caught:
        made.file(address, "image")
    return caught.value.reason, str(caught.value)


@pytest.mark.parametrize("case", ["good", "untold", "chunked", "moved", "good?size=1 b&c=ü"])
def test_a_picture_arrives_and_is_kept(site, tmp_path, case):
    address, asked = site
    fetched = downloads(tmp_path).file(f"{address}/{case}", "image")
    assert fetched.file.read_bytes() == PICTURE
    assert json.loads(fetched.address_file.read_bytes())["address"] == f"{address}/{case}"
    before = len(asked)
    again = downloads(tmp_path).file(f"{address}/{case}#part", "image")
    assert again == fetched
    assert len(asked) == before


@pytest.mark.parametrize(
    ("case", "expected", "said"),
    [
        ("missing", "download_failed", "status 404"),
        ("short", "download_failed", "bytes arrived"),
        ("cutchunk", "download_failed", "IncompleteRead"),
        ("junk", "download_failed", "BadStatusLine"),
        ("promise", "media_too_large", "more than 20000 bytes"),
        ("endless", "media_too_large", "more than 20000 bytes"),
        ("page", "wrong_type", "'text/html', not image"),
        ("packed", "wrong_type", "packed as 'gzip'"),
        ("loop", "address_refused", "more than 3 redirects"),
        ("away", "address_refused", "elsewhere.example is not among"),
        ("inside", "address_refused", "169.254.169.254 is not among"),
        ("local", "address_refused", "no https address"),
    ],
)
def test_what_misbehaves_has_a_reason_and_leaves_nothing(site, tmp_path, case, expected, said):
    found, note = reason(downloads(tmp_path, max_file_bytes=20_000), f"{site[0]}/{case}")
    assert (found, said in note) == (expected, True), note
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("case", ["drip", "dripheader", "driptoend"])
def test_an_answer_that_drips_ends_in_time(site, tmp_path, case):
    found, note = reason(downloads(tmp_path, timeout_s=0.3), f"{site[0]}/{case}")
    assert (found, "within 0.3 s" in note) == ("download_failed", True), note


def test_a_read_that_gives_up_before_the_timer_says_the_same(site, monkeypatch, tmp_path):
    monkeypatch.setattr(CheckedConnection, "_stop", lambda connection: None)
    found, note = reason(downloads(tmp_path, timeout_s=0.05), f"{site[0]}/drip")
    assert (found, "within 0.05 s" in note) == ("download_failed", True), note


def test_the_budget_of_a_build_counts_each_address_once(site, tmp_path):
    limit = 2 * len(PICTURE) + 10
    made = downloads(tmp_path, max_total_bytes=limit)
    for case in ("good", "chunked", "good"):
        made.file(f"{site[0]}/{case}", "image")
    for _ in range(2):
        assert reason(made, f"{site[0]}/untold") == (
            "download_budget",
            f"would pass the {limit} bytes of a build",
        )
    downloads(tmp_path).file(f"{site[0]}/untold", "image")
    again = downloads(tmp_path, max_total_bytes=limit)
    for case in ("good", "chunked"):
        again.file(f"{site[0]}/{case}", "image")
    assert reason(again, f"{site[0]}/untold")[0] == "download_budget"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://example.com/a.jpg", "is not https"),
        ("https://user:secret@example.com/a.jpg", "no https address"),
        ("https:///a.jpg", "no https address"),
        ("https://example.com:22/a.jpg", "port 22"),
        ("https://example.com:99999/a.jpg", "Port out of range"),
        ("https://[::1/a.jpg", "Invalid IPv6"),
        ("https://" + "a" * 300 + ".com/", "label"),
        ("https://example.com/" + "a" * 5000, "5020 characters"),
        ("https://inside.example/a.jpg", "inside.example leads to 10.0.0.7"),
        ("https://half.example/a.jpg", "half.example leads to 127.0.0.1"),
        ("https://127.0.0.1/a.jpg", "127.0.0.1 leads to 127.0.0.1"),
        ("https://2130706433/a.jpg", "2130706433 leads to 127.0.0.1"),
        ("https://[::ffff:127.0.0.1]/a.jpg", "not a public address"),
    ],
)
def test_what_may_not_be_asked_is_not_asked(tmp_path, monkeypatch, address, said):
    known = {"inside.example": ["10.0.0.7"], "half.example": ["93.184.216.34", "127.0.0.1"]}
    known |= {"2130706433": ["127.0.0.1"]}

    def resolve(host, port, **_):
        return [(0, 0, 0, "", (one, port)) for one in known.get(host, [host])]

    def refuse(*_, **__):
        raise AssertionError("connects")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", refuse)
    found, note = reason(downloads(tmp_path, hosts=()), address)
    assert (found, said in note) == ("address_refused", True), note


def test_only_listed_hosts_are_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    made = downloads(tmp_path, hosts=("*.example.org", "127.0.0.1"))
    assert "not among" in reason(made, "https://example.com/a.jpg")[1]
    assert "not among" in reason(made, "https://example.org.evil.com/a.jpg")[1]
    assert "no address" in reason(made, "https://pictures.example.org/a.jpg")[1]
    assert "is not https" in reason(made, "http://pictures.example.org/a.jpg")[1]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        *(
            (one, False)
            for one in ("10.1.2.3", "172.16.0.1", "192.168.0.1", "127.9.9.9", "169.254.1.1", "0.0.0.0")
        ),
        *((one, False) for one in ("100.64.0.1", "224.0.0.1", "255.255.255.255", "198.18.0.1")),
        *(
            (one, False)
            for one in ("::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "::127.0.0.1")
        ),
        *((one, False) for one in ("2002:7f00:1::", "64:ff9b::7f00:1", "2001:0:7f00:1::", "2001:db8::1")),
    ],
)
def test_public_addresses(address, public):
    assert is_public(ip_address(address)) is public


def test_a_damaged_cache_is_not_used(site, tmp_path):
    fetched = downloads(tmp_path).file(f"{site[0]}/good", "image")
    fetched.file.write_bytes(b"other")
    assert downloads(tmp_path).file(f"{site[0]}/good", "image").file.read_bytes() == PICTURE
    fetched.address_file.write_bytes(b"{")
    assert downloads(tmp_path).file(f"{site[0]}/good", "image") == fetched


def test_what_is_a_web_address():
    assert is_web_address("HTTPS://example.com/a.jpg")
    assert not any(
        map(is_web_address, ("a.jpg", "file:///a.jpg", "ftp://a/b.jpg", "data:image/png;base64,AA", ""))
    )


@pytest.fixture
def rows(tmp_path):
    """Writes rows that name pictures at a site; returns the file."""

    def write(address):
        names = [f"{address}/{case}.jpg" for case in ("good", "missing", "chunked", "page")]
        content = [
            {
                "image": name,
                "conversations": [
                    {"from": "human", "value": f"<image>\nWhat does number {number} show?"},
                    {"from": "gpt", "value": "Only noise."},
                ],
            }
            for number, name in enumerate(names)
        ]
        path = tmp_path / "rows.json"
        path.write_text(json.dumps(content))
        return path

    return write


def test_a_build_fetches_only_if_allowed_and_is_repeated_without_a_connection(rows, tmp_path):
    def config(name, cache, **changes):
        settings = {"hosts": ["127.0.0.1"], "cache": tmp_path / cache}
        return config_for(f"llava:{path}", output=tmp_path / name, download=settings, **changes)

    with serve() as (address, asked):
        path = rows(address)
        runner = CliRunner()
        arguments = [
            "curate",
            "build-corpus",
            "--source",
            f"llava:{path}",
            "--output",
            str(tmp_path / "none"),
        ]
        refused = runner.invoke(app, arguments)
        assert refused.exit_code == 1
        assert "outside_root 4" in refused.output
        assert not asked
        told = runner.invoke(app, [*arguments, "--allow-download"])
        assert "address_refused 4" in told.output
        assert not asked
        summary = build_corpus(config("one", "cache", allow_download=True))
        assert (summary.counts.kept, summary.counts.dropped) == (2, {"download_failed": 1, "wrong_type": 1})
        assert sorted(asked) == ["/chunked.jpg", "/good.jpg", "/missing.jpg", "/page.jpg"]
        (tmp_path / "cache").rename(tmp_path / "elsewhere")
    again = build_corpus(config("one", "elsewhere", allow_download=True))
    assert again.reused == again.shards
    two = build_corpus(config("two", "elsewhere", allow_download=True))
    assert two.counts.kept == 2
    one, other = content_of(tmp_path / "one"), content_of(tmp_path / "two")
    different = {name for name in one if one[name] != other[name] and not name.startswith(".cache")}
    # What could not be fetched failed for another reason then: the connection.
    assert different <= {"dropped.parquet", "manifest.json", "README.md", "report.html", "stages.parquet"}
    assert pq.read_table(tmp_path / "two/records.parquet").num_rows == 2


def test_another_content_at_an_address_is_another_build(site, rows, tmp_path, monkeypatch):
    path = rows(site[0])
    settings = {"hosts": ["127.0.0.1"], "cache": tmp_path / "cache"}
    config = config_for(f"llava:{path}", output=tmp_path / "out", allow_download=True, download=settings)
    build_corpus(config)
    for file in (tmp_path / "cache/addresses").iterdir():
        file.unlink()
    Image.effect_noise((50, 50), 40).save(tmp_path / "other.jpg")
    monkeypatch.setattr("tests.curate.corpus.web.PICTURE", (tmp_path / "other.jpg").read_bytes())
    with pytest.raises(OutputExistsError):
        build_corpus(config)
