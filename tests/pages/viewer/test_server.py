"""The viewer's server: whole and partial files for whoever has the token, nothing for anybody else."""

import http.client
from urllib.parse import urlsplit

import pytest

from blm.pages.viewer.content import PAGE_FILES
from blm.pages.viewer.dataset import ViewedDataset
from blm.pages.viewer.server import ViewerServer, _byte_range
from blm.schemas.errors import UsageError
from tests.factories import make_dataset
from tests.loopback import serving


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("served") / "data"
    dataset = ViewedDataset(make_dataset(root, episodes=2, frames=10, image_size=32))
    dataset.data_file(1).write_bytes(b"damaged")
    with serving(ViewerServer(dataset, first=1)) as running:
        yield running


def ask(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body, response.headers


def at(server, name):
    return f"/{server.token}/{name}"


def test_the_address_leads_to_the_page_and_its_files(server):
    parts = urlsplit(server.address)
    assert (parts.hostname, parts.fragment) == ("127.0.0.1", "1")
    status, body, headers = ask(server, parts.path)
    assert status == 200
    assert b"<title>blm view</title>" in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    for name in (*PAGE_FILES, "dataset.js", "episodes/0.js"):
        assert ask(server, at(server, name))[0] == 200
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "index.html",
        "*",
        "/index.html",
        "/wrong/index.html",
        "/wrong/videos/0/0.mp4",
        "//index.html",
        "/%2e%2e/meta/info.json",
    ],
)
def test_without_the_token_nothing_is_found(server, path):
    status, body, _ = ask(server, path)
    assert (status, body) == (404, b"")


@pytest.mark.parametrize(
    "name",
    [
        "../meta/info.json",
        "meta/info.json",
        "page/viewer.js",
        "videos/0/../../meta/info.json",
        "videos/0/..%2f..%2fmeta%2finfo.json",
        "videos/9/0.mp4",
        "videos/0/9.mp4",
        "videos/-1/0.mp4",
        "videos/0/0.mp4/..",
        "videos/%D9%A0/0.mp4",
        "episodes/9.js",
        "episodes/../dataset.js",
        "/etc/hostname",
    ],
)
def test_no_other_file_can_be_reached(server, name):
    assert ask(server, at(server, name))[:2] == (404, b"")


def test_another_sites_name_is_refused(server):
    assert ask(server, at(server, "dataset.js"), Host="evil.example")[0] == 403
    assert ask(server, at(server, "dataset.js"), Host=f"localhost:{server.server_port}")[0] == 200


def test_parts_of_a_video(server):
    dataset = server.source
    content = dataset.video_file(0, dataset.cameras[0]).read_bytes()
    name = at(server, "videos/0/0.mp4")
    status, body, headers = ask(server, name)
    assert (status, body, headers["Accept-Ranges"]) == (200, content, "bytes")
    for wanted, piece in (("0-99", content[:100]), ("100-", content[100:]), ("-50", content[-50:])):
        status, body, headers = ask(server, name, Range=f"bytes={wanted}")
        assert (status, body) == (206, piece)
        assert headers["Content-Range"].endswith(f"/{len(content)}")
    assert ask(server, name, Range=f"bytes={len(content)}-")[0] == 416
    status, body, headers = ask(server, name, method="HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", str(len(content)))
    assert ask(server, name, method="POST")[0] == 501


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, (0, 10)),
        ("bytes=2-5", (2, 6)),
        ("bytes=2-500", (2, 10)),
        ("bytes=-4", (6, 10)),
        ("bytes=-40", (0, 10)),
        ("bytes=-0", None),
        ("bytes=-", None),
        ("bytes=5-2", None),
        ("bytes=10-", None),
        ("bytes=0-1,4-5", None),
        ("lines=0-1", None),
    ],
)
def test_ranges(header, expected):
    assert _byte_range(header, 10) == expected


def test_an_episode_that_cannot_be_read_says_so_on_the_page(server):
    status, body, _ = ask(server, at(server, "episodes/1.js"))
    assert status == 200
    assert body.startswith(b"window.blm.showProblem(")
    assert b"is not readable" in body


def test_a_port_in_use_and_a_missing_episode(server):
    with pytest.raises(UsageError, match="cannot be used"):
        ViewerServer(server.source, server.server_port)
    with pytest.raises(UsageError, match="episode 5 not found"):
        ViewerServer(server.source, first=5)
