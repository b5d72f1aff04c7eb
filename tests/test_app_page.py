"""The page in a browser: real clicks and uploads, phones, two users, a reload, a killed server, hostile files.

Needs the extra `app`, playwright and a `chromium` on the path.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hostile import hostile_files
from test_looking import people

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WAIT = 240_000  # ms, on a slow machine
pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(not find_spec("gradio"), reason="the extra `app` is not installed"),
    pytest.mark.skipif(not (find_spec("playwright") and CHROMIUM), reason="needs playwright and chromium"),
]
EXIF = Image.Exif()
EXIF[0x010E] = "<script>document.title = 'harmed'</script>"  # ImageDescription
WATCHED = """
import sys

def told(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        place = args[0] if event == "socket.getaddrinfo" else args[1]
        with open(sys.argv[3] + ".connections", "a") as file:
            print(place if isinstance(place, str) else place[0], file=file)

sys.addaudithook(told)
from unfade.__main__ import start
start()
"""  # unfade, which tells what it connects to


@contextmanager
def served(work: Path, port: int = 0) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The address of the page, and its process."""
    command = [sys.executable, "-c", WATCHED, "app", "--work", str(work), "--port", str(port), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["address"], process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    work = tmp_path_factory.mktemp("work")
    with served(work) as (address, _):
        yield address, work


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def browser(chromium: Any) -> Iterator[Any]:
    yield chromium
    for context in chromium.contexts:  # an open page asks the server every second
        context.close()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = people(tmp_path / "two people.png")
    with Image.open(path) as image:
        image.convert("RGB").save(tmp_path / "two people.jpg", quality=95, exif=EXIF)
    return tmp_path / "two people.jpg"


def opened(browser: Any, address: str, **how: Any) -> Any:
    """The page as a new user sees it."""
    page = browser.new_context(**how).new_page()
    page.set_default_timeout(WAIT)
    page.goto(address)
    page.wait_for_selector("#restore")
    return page


def drop(page: Any, *files: Path) -> None:
    page.set_input_files("#drop input[type=file]", [str(path) for path in files])


def dropped(page: Any, *files: Path) -> None:
    drop(page, *files)
    page.wait_for_selector("#photo img")


def said(page: Any, pattern: str) -> str:
    """What the page says once that matches."""
    page.wait_for_function(f"/{pattern}/.test(document.querySelector('#stage')?.innerText ?? '')")
    return str(page.inner_text("#stage"))


def restore(page: Any) -> list[bytes]:
    """The results as the browser downloads them."""
    page.click("#restore")
    page.wait_for_selector("#slider img")
    files = []
    for link in page.query_selector_all("#results a"):
        with page.expect_download() as download:
            link.click()
        files.append(Path(download.value.path()).read_bytes())
    return files


def pixels(content: bytes, tmp_path: Path) -> Any:
    (tmp_path / "downloaded").write_bytes(content)
    with Image.open(tmp_path / "downloaded") as image:
        return np.asarray(image).astype(int)


def test_a_face_is_left_out_by_a_click_and_metadata_stays(
    browser: Any, page_of: Any, photo: Path, tmp_path: Path
) -> None:
    address, _ = page_of
    page = opened(browser, address)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    dropped(page, photo)
    image = page.locator("#photo img")
    box = image.bounding_box()
    image.click(position={"x": box["width"] / 4, "y": box["height"] / 2})
    page.wait_for_timeout(3000)
    (content,) = restore(page)
    before, after = pixels(photo.read_bytes(), tmp_path), pixels(content, tmp_path)
    changed = np.abs(before - after).max(-1) > 12
    assert (changed[:, :180].mean() < 0.01, changed[:, 220:380].mean() > 0.2) == (True, True)
    with Image.open(tmp_path / "downloaded") as image:
        assert image.getexif()[0x010E] == EXIF[0x010E]
    assert page.title() == "unfade", "nothing in the photo was run"
    assert {re.sub(r"(http://127\.0\.0\.1:\d+/|data:|blob:).*", "own", url, flags=re.DOTALL) for url in asked} == {
        "own"
    }


def test_names_are_shown_and_never_run(browser: Any, page_of: Any, photo: Path, tmp_path: Path) -> None:
    page = opened(browser, page_of[0])
    evil = tmp_path / "<img src=x onerror=document.title='harmed'>.jpg"
    shutil.copyfile(photo, evil)
    broken = tmp_path / "<img src=x onerror=document.title='harmed'> 2.jpg"
    broken.write_bytes(b"no picture")
    dropped(page, evil, broken)
    restore(page)
    assert page.title() == "unfade"
    assert page.query_selector_all("img[src=x]") == []


def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Any, page_of: Any, photo: Path) -> None:
    page = opened(browser, page_of[0], viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    page.fill("#steps input", "")  # is no error, neither now nor at every tick
    page.press("#steps input", "Tab")
    dropped(page, photo)
    restore(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.query_selector_all(".toast-body") == []


def test_two_users_see_their_own_photos_and_a_reload_keeps_them(browser: Any, page_of: Any, tmp_path: Path) -> None:
    first, second = (opened(browser, page_of[0]) for _ in range(2))
    dropped(first, people(tmp_path / "mine.png"))
    dropped(second, people(tmp_path / "yours.png"))
    assert (len(restore(first)), len(restore(second))) == (1, 1)
    for page, name, other in ((first, "mine.png", "yours.png"), (second, "yours.png", "mine.png")):
        page.reload()
        page.wait_for_selector("#slider img")
        assert (name in page.inner_text("body"), other in page.inner_text("body")) == (True, False)


def test_200_hostile_uploads(browser: Any, page_of: Any, tmp_path: Path) -> None:
    page = opened(browser, page_of[0])
    drop(page, *hostile_files(tmp_path / "files"))
    page.wait_for_selector("#refused .said")
    lines = page.inner_text("#refused .said").splitlines()
    assert len(lines) == 200
    assert [line for line in lines if "/" in line.replace("%2f", "")] == [], "no path of the server"
    assert page.title() == "unfade"
    dropped(page, people(tmp_path / "good.png"))


def test_an_adaptation_survives_stop_reload_and_a_killed_server(browser: Any, tmp_path: Path) -> None:
    from playwright.sync_api import Error as Aborted

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with served(tmp_path / "work", port) as (address, process):
        page = opened(browser, address)
        dropped(page, people(tmp_path / "a.png"), people(tmp_path / "b.png"))
        page.fill("#steps input", "2")
        page.press("#steps input", "Tab")
        page.click("#adapt")
        said(page, "(faces|targets): ")
        page.click("#stop")
        said(page, "Stopped. What is finished is kept")
        page.reload()
        page.click("#adapt")
        said(page, "(targets|fine-tuning): ")
        page.reload()
        said(page, "(targets|fine-tuning): ")
        process.send_signal(signal.SIGKILL)
        process.wait()
    with served(tmp_path / "work", port):
        with suppress(Aborted):  # Gradio's page may reload itself at this moment, as the server is back
            page.reload()
        said(page, "interrupted here")
        assert page.input_value("#steps input") == "2"
        page.click("#adapt")
        said(page, "Open the report")
        assert page.query_selector_all("#targets img")
        assert page.query_selector_all("#curves svg")
        with page.context.expect_page() as report:
            page.click("#stage a")
        report.value.wait_for_load_state()
        assert report.value.title() == "unfade: adapted to your photos"
        load = "image => { image.loading = 'eager'; return image.decode(); }"  # raises for one that is not there
        report.value.evaluate(f"Promise.all([...document.images].map({load}))")


def asks(address: str, path: str, body: bytes | None = None, **headers: str) -> int:
    """The status of an answer."""
    with suppress(urllib.error.HTTPError):
        return int(urllib.request.urlopen(urllib.request.Request(address + path, body, headers), timeout=60).status)
    return 403


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../../etc/passwd", "~/.bashrc"])
def test_files_of_the_machine_are_out_of_reach(page_of: Any, path: str) -> None:
    for place in (f"gradio_api/file={path}", f"files/{path}", "files/%2e%2e/%2e%2e/etc/passwd", "files/"):
        assert asks(page_of[0], place) == 403, place


def test_the_documented_interface(page_of: Any, photo: Path, tmp_path: Path) -> None:
    document = (Path(__file__).parents[1] / "docs" / "app.md").read_text()
    (script,) = re.findall(r"```sh\n(page=.*?)```", document, re.DOTALL)
    shutil.copyfile(photo, tmp_path / "photo.jpg")
    script = script.replace("http://127.0.0.1:7860/", page_of[0])
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True, env={**os.environ, "no_proxy": "127.0.0.1"})
    before, after = (pixels((tmp_path / name).read_bytes(), tmp_path) for name in ("photo.jpg", "restored.jpg"))
    assert before.shape == after.shape
    assert np.abs(before - after).max() > 20


@pytest.mark.parametrize("address", ["http://example.com/photo.jpg", "https://example.com/photo.jpg"])
def test_an_address_is_not_fetched(page_of: Any, address: str) -> None:
    photo = {"path": address, "url": address, "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [photo, "built-in", 1.0, 0.5]}).encode()
    call = f"{page_of[0]}gradio_api/call/restore"
    request = urllib.request.Request(call, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{call}/{event}") as answer:
        assert "Photos are not fetched from an address; upload the file." in answer.read().decode()


def test_it_listens_on_this_machine_only(page_of: Any) -> None:
    port = int(page_of[0].rstrip("/").rsplit(":", 1)[1])
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if " 0A " in line]
    places = {line[1] for line in listening if line[1].endswith(f":{port:04X}")}
    assert places == {f"0100007F:{port:04X}"}


def test_it_connects_to_nothing_but_itself(browser: Any, page_of: Any, photo: Path) -> None:
    address, work = page_of
    page = opened(browser, address)
    dropped(page, photo)
    restore(page)
    assert {*work.with_name(f"{work.name}.connections").read_text().split()} == {"127.0.0.1"}
