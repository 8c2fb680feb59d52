"""The page in a real browser: it plays, follows, seeks, filters, moves on by keys, and takes hostile text as text."""

import json
import shutil
import threading

import pytest

from blm.pages.viewer.dataset import ViewedDataset
from blm.pages.viewer.server import ViewerServer
from blm.pages.viewer.static_page import write_static_page
from blm.train.shard_build import ShardBuild
from blm.train.viewed_build import ViewedBuild
from tests.factories import make_dataset
from tests.pages.viewer import image_dataset, shared_video
from tests.train.stage2_builds import make_build

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs an installed Chromium"),
]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu"],
        )
        yield launched
        launched.close()


@pytest.fixture
def page(browser):
    opened = browser.new_page(viewport={"width": 1200, "height": 1000})
    complaints = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    opened.close()
    assert complaints == []


@pytest.fixture
def serving():
    running = []

    def serve(dataset, first=None):
        server = ViewerServer(dataset, first=first)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return server.address

    yield serve
    for server in running:
        server.shutdown()
        server.server_close()


def shown_number(page):
    """The number of the frame that the video shows, read from its pixels."""
    grey = page.evaluate(
        """() => new Promise((done) => {
          const video = document.querySelector("video");
          const read = () => {
            if (video.seeking || video.readyState < 2) { setTimeout(read, 20); return; }
            const canvas = document.createElement("canvas");
            canvas.width = canvas.height = 8;
            const pen = canvas.getContext("2d");
            pen.drawImage(video, 0, 0, 8, 8);
            done(pen.getImageData(4, 4, 1, 1).data[0]);
          };
          setTimeout(read, 50);
        })"""
    )
    return round((grey - 20) / 6)


def test_each_frame_number_shows_its_own_picture(page, serving, tmp_path):
    address = serving(ViewedDataset(shared_video.write_dataset(tmp_path / "wheels")), first=1)
    page.goto(address)
    page.wait_for_selector("body[data-shown='1']")
    first, length = shared_video.FRAMES[:2]
    shown = []
    for frame in range(length):
        assert page.inner_text("#clock").endswith(f"frame {frame}")
        shown.append(shown_number(page) - first)
        page.keyboard.press(".")
    assert shown == list(range(length))


def test_playing_ends_at_the_last_frame_of_the_episode(page, serving, tmp_path):
    address = serving(ViewedDataset(shared_video.write_dataset(tmp_path / "wheels")), first=0)
    page.goto(address)
    page.wait_for_selector("body[data-shown='0']")
    shown_number(page)
    page.keyboard.press("Space")
    assert page.inner_text("#play") == "❚❚"
    playwright.expect(page.locator("#play")).to_have_text("▶", timeout=15_000)
    assert page.inner_text("#clock").endswith(f"frame {shared_video.FRAMES[0] - 1}")
    assert shown_number(page) == shared_video.FRAMES[0] - 1
    assert page.inner_text("#instruction") == "drive 0 <b>metres</b>", "markup in a dataset stays text"


def test_keys_move_through_the_filtered_list(page, serving, tmp_path):
    root = make_dataset(
        tmp_path / "data", episodes=12, frames=8, image_size=32, success=[n % 3 != 0 for n in range(12)]
    )
    page.goto(serving(ViewedDataset(root)))
    page.wait_for_selector("body[data-shown='0']")
    assert page.locator(".band").all_inner_texts() == ["approach", "push", "retreat"]
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("body[data-shown='1']")
    page.select_option("#by-success", "=failed")
    assert "4 of 12 episodes" in page.inner_text("#counted")
    page.locator("#list .item").nth(1).click()
    page.wait_for_selector("body[data-shown='3']")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("body[data-shown='6']")
    page.fill("#search", "no such words")
    assert page.locator("#list .item").count() == 0


def test_a_click_on_a_plot_seeks(page, serving, tmp_path):
    page.goto(serving(ViewedDataset(make_dataset(tmp_path / "data", episodes=1, frames=41, image_size=32))))
    page.wait_for_selector("body[data-shown='0']")
    box = page.locator(".plot .inner").first.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 10)
    assert page.inner_text("#clock").endswith("frame 20")
    cursor = page.locator(".plot .cursor").first.evaluate("element => element.style.left")
    assert cursor == "50%"


def test_hostile_text_stays_text(page, serving, tmp_path):
    root = make_dataset(tmp_path / "data", episodes=1, frames=8, image_size=32)
    hostile = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
    dataset = ViewedDataset(root)
    for key in ("blm/instruction", "blm/task", "blm/operator"):
        dataset.rows[0][key] = hostile
    dataset.rows[0]["blm/objects"] = json.dumps([{"name": hostile, "shape": hostile}])
    page.goto(serving(dataset))
    page.wait_for_selector("body[data-shown='0']")
    assert page.inner_text("#instruction") == hostile
    assert page.title() == "data – blm view"
    assert page.locator("main img").count() == 0


def test_a_page_in_a_folder_opens_without_a_server(page, tmp_path):
    dataset = ViewedDataset(shared_video.write_dataset(tmp_path / "wheels"))
    index = write_static_page(dataset, tmp_path / "page", [1, 2])
    page.goto(index.as_uri())
    page.wait_for_selector("body[data-shown='1']")
    assert page.inner_text("#clock") == "0.00 s · frame 0"
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("body[data-shown='2']")
    page.wait_for_function("document.querySelector('video').readyState >= 2")
    assert page.locator(".taken").count() == 2


def grey_of_picture(page, frame):
    """The grey of the canvas once it shows that frame."""
    page.wait_for_selector(f"canvas[data-frame='{frame}']")
    return page.evaluate(
        """() => {
          const copy = document.createElement("canvas");
          copy.width = copy.height = 8;
          const pen = copy.getContext("2d");
          pen.drawImage(document.querySelector("#videos canvas"), 0, 0, 8, 8);
          return pen.getImageData(4, 4, 1, 1).data[0];
        }"""
    )


def test_single_pictures_are_shown_frame_by_frame_and_play(page, serving, tmp_path):
    page.goto(serving(ViewedDataset(image_dataset.write_dataset(tmp_path / "watched")), first=1))
    page.wait_for_selector("body[data-shown='1']")
    first, length = image_dataset.FRAMES
    for frame in range(length):
        assert grey_of_picture(page, frame) == image_dataset.grey(first + frame)
        page.keyboard.press(".")
    page.keyboard.press("Home")
    page.keyboard.press("Space")
    playwright.expect(page.locator("#play")).to_have_text("▶", timeout=15_000)
    assert grey_of_picture(page, length - 1) == image_dataset.grey(first + length - 1)


def test_a_build_has_splits_to_choose_from(page, serving, tmp_path):
    build = make_build(tmp_path / "splits", episodes=4, cameras=("top", "wrist"))
    page.goto(serving(ViewedBuild(ShardBuild(build))))
    page.wait_for_selector("body[data-shown='0']")
    assert "split train" in page.inner_text("#chips")
    page.select_option("#by-split", "=val")
    assert "2 of 6 samples" in page.inner_text("#counted")
    page.locator("#list .item").first.click()
    page.wait_for_selector("body[data-shown='4']")
    page.wait_for_selector("canvas[data-frame='0']")
    assert page.locator("#videos canvas").count() == 2
    assert "so100_val-000000" in page.inner_text("#tables")


def test_pictures_of_a_page_in_a_folder_need_no_server(page, tmp_path):
    dataset = ViewedDataset(image_dataset.write_dataset(tmp_path / "watched"))
    page.goto(write_static_page(dataset, tmp_path / "page", [0]).as_uri())
    page.wait_for_selector("canvas[data-frame='0']")
    page.keyboard.press("End")
    page.wait_for_selector("canvas[data-frame='5']")
