"""Downloads from a server on this machine that behaves as badly as real ones do."""

import hashlib
import io
import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from unfade.atomic import FULL
from unfade.cli import main
from unfade.errors import BadCheckpoint, BadInput, DiskFull
from unfade.zoo import download as module
from unfade.zoo.download import DownloadFailed, DownloadSettings, Fetched, discard_parts, fetch
from unfade.zoo.published import Download

CONTENT = bytes(range(256)) * 12_000  # 3 MB: several chunks
SHA = hashlib.sha256(CONTENT).hexdigest()
QUICK = DownloadSettings(timeout=30, tries=3, pause=0.01, chunk=1 << 18)  # nothing here waits, but a busy machine
IMPATIENT = replace(QUICK, timeout=0.5)
FILE = Download("face.pth", SHA)
HALF = len(CONTENT) // 2


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str | None, str | None]] = []  # path, Range, If-Range
        self.content = CONTENT
        self.etag = '"first"'
        self.over = threading.Event()
        self.gave_in = False  # before the client did

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is part of these tests."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        span = self.headers.get("Range")
        self.server.seen.append((self.path, span, self.headers.get("If-Range")))
        BEHAVIOUR[self.path.split("/")[-2]](self)

    def log_message(self, *_: object) -> None:
        pass

    def head(self, code: int, length: int, **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def whole(self, *, until: int | None = None) -> None:
        """Answer Range and If-Range properly; hang up at byte `until` of the first answer."""
        content, tag = self.server.content, self.server.etag
        start = int(re.findall(r"\d+", self.headers.get("Range", "0"))[0])
        if self.headers.get("If-Range", tag) != tag:
            start = 0
        if start >= len(content):
            self.head(416, 0, Content_Range=f"bytes */{len(content)}")
            return
        if start:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.head(206, len(content) - start, ETag=tag, Content_Range=span)
        else:
            self.head(200, len(content), ETag=tag)
        self.wfile.write(content[start:] if until is None or start else content[:until])

    def truncated(self) -> None:
        self.whole(until=HALF)

    def without_range(self) -> None:
        self.head(200, len(CONTENT))
        self.wfile.write(CONTENT)

    def always_short(self) -> None:
        self.head(200, len(CONTENT))
        self.wfile.write(CONTENT[:1000])

    def wrong(self) -> None:
        self.head(200, 9)
        self.wfile.write(b"not these")

    def moved(self) -> None:
        self.head(302, 0, Location=f"{self.server.url}/whole/{FILE.file}")

    def moved_to_a_file(self) -> None:
        self.head(302, 0, Location="file:///etc/hostname")

    def slow(self) -> None:
        self.head(200, len(CONTENT))
        self.wfile.write(CONTENT[:1000])
        self.wfile.flush()
        self.server.gave_in |= not self.server.over.wait(60)

    def missing(self) -> None:
        self.head(404, 0)

    def busy_once(self) -> None:
        if len(self.server.seen) == 1:
            self.head(503, 0)
        else:
            self.whole()

    def other_part(self) -> None:
        self.head(206, 10, Content_Range=f"bytes 5-14/{len(CONTENT)}")
        self.wfile.write(CONTENT[5:15])

    def headed(self, code: int, **headers: str) -> None:
        """An answer whose headers are these and no others."""
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def no_number(self) -> None:
        self.headed(200, Content_Length="lots")
        self.wfile.write(CONTENT)

    def less_than_nothing(self) -> None:
        self.headed(200, Content_Length="-5")

    def many_digits(self) -> None:
        self.headed(200, Content_Length="9" * 5000)

    def odd_part(self) -> None:
        self.headed(206, Content_Range=f"bytes 0-1/{'9' * 5000}")

    def moved_to_a_bracket(self) -> None:
        self.headed(302, Location="http://[::1/face.pth", Content_Length="0")

    def moved_to_a_port(self) -> None:
        self.headed(302, Location="http://127.0.0.1:many/face.pth", Content_Length="0")

    def moved_nowhere(self) -> None:
        self.headed(302, Content_Length="0")

    def endless(self) -> None:
        self.headed(200)
        for _ in range(100):
            self.wfile.write(CONTENT)

    def dripping(self) -> None:
        self.headed(200, Content_Length=str(len(CONTENT)))
        for place in range(600):
            self.wfile.write(CONTENT[place : place + 1])
            self.wfile.flush()
            if self.server.over.wait(0.05):
                return

    def unmeasured(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(CONTENT)


BEHAVIOUR: dict[str, Callable[[Handler], None]] = {
    name: getattr(Handler, name)
    for name in ("whole", "truncated", "without_range", "always_short", "wrong", "moved", "moved_to_a_file", "slow",
                 "missing", "busy_once", "other_part", "unmeasured", "no_number", "less_than_nothing", "many_digits",
                 "odd_part", "moved_to_a_bracket", "moved_to_a_port", "moved_nowhere", "endless", "dripping")
}  # fmt: skip


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "UNFADE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    running.seen, running.content, running.etag = [], CONTENT, '"first"'
    return running


@pytest.fixture
def get(server: Server, tmp_path: Path) -> Callable[..., Fetched]:
    def call(*behaviours: str, file: Download = FILE, settings: DownloadSettings = QUICK) -> Fetched:
        urls = [f"{server.url}/{behaviour}/{FILE.file}" for behaviour in behaviours]
        return fetch(file, tmp_path, urls=urls, settings=settings)

    return call


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("behaviour", ["whole", "without_range", "moved", "unmeasured", "busy_once"])
def test_a_file_comes_whole(get: Callable[..., Fetched], server: Server, tmp_path: Path, behaviour: str) -> None:
    fetched = get(behaviour)
    assert fetched.path.read_bytes() == CONTENT
    assert (fetched.sha256, fetched.url) == (SHA, f"{server.url}/{behaviour}/{FILE.file}")
    discard_parts(tmp_path, FILE)
    assert names(tmp_path) == []


def test_a_broken_download_goes_on_where_it_stopped(get: Callable[..., Fetched], server: Server) -> None:
    assert get("truncated").path.read_bytes() == CONTENT
    path = f"/truncated/{FILE.file}"
    assert server.seen == [(path, None, None), (path, f"bytes={HALF}-", '"first"')]


def test_a_killed_download_is_resumed(get: Callable[..., Fetched], server: Server, tmp_path: Path) -> None:
    (tmp_path / "face.pth.part").write_bytes(CONTENT[:HALF])
    get("whole")
    assert server.seen[0][1:] == (f"bytes={HALF}-", None), "the hash of the whole is known, so it may be"


def test_without_hash_or_tag_it_begins_again(get: Callable[..., Fetched], server: Server, tmp_path: Path) -> None:
    (tmp_path / "face.pth.part").write_bytes(b"other" + CONTENT[5:HALF])
    fetched = get("whole", file=replace(FILE, sha256=None))
    assert fetched.sha256 == SHA, "the hash that was seen"
    assert server.seen[0][1] is None


def test_a_newer_version_is_fetched_from_its_start(get: Callable[..., Fetched], server: Server) -> None:
    with pytest.raises(DownloadFailed):
        get("always_short", file=replace(FILE, sha256=None))
    server.seen.clear()
    with_tag = replace(FILE, sha256=None)
    server.content, server.etag = CONTENT[::-1], '"second"'
    folder = get("whole", file=with_tag).path.parent
    about = folder / "face.pth.part.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "etag": '"first"'}))
    (folder / "face.pth.part").write_bytes(CONTENT[:HALF])
    assert get("whole", file=with_tag).path.read_bytes() == CONTENT[::-1]
    assert server.seen[-1][2] == '"first"'


def test_a_whole_part_is_not_fetched_again(get: Callable[..., Fetched], server: Server, tmp_path: Path) -> None:
    (tmp_path / "face.pth.part").write_bytes(CONTENT)
    assert get("whole").sha256 == SHA
    assert len(server.seen) == 1, "the server says that nothing is missing"
    assert get("whole", file=replace(FILE, bytes=len(CONTENT))).sha256 == SHA
    assert len(server.seen) == 1, "the size says it"
    (tmp_path / "face.pth.part").write_bytes(CONTENT + b"more")
    assert get("whole").path.read_bytes() == CONTENT


def test_a_wrong_hash_names_both_and_leaves_nothing(get: Callable[..., Fetched], tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint) as caught:
        get("wrong")
    assert hashlib.sha256(b"not these").hexdigest() in str(caught.value)
    assert SHA in str(caught.value)
    assert names(tmp_path) == []


def test_the_next_mirror_is_tried(get: Callable[..., Fetched], server: Server) -> None:
    assert get("missing", "wrong", "slow", "whole", settings=IMPATIENT).url.startswith(f"{server.url}/whole/")


def test_the_answers_of_all_mirrors_are_reported(get: Callable[..., Fetched]) -> None:
    with pytest.raises(DownloadFailed) as caught:
        get("missing", "moved_to_a_file", "other_part")
    said = str(caught.value)
    assert "answers 404 Not Found" in said
    assert "Redirection to url 'file:///etc/hostname' is not allowed" in said
    assert "another part of the file" in said


def test_a_silent_server_times_out(get: Callable[..., Fetched], server: Server) -> None:
    with pytest.raises(DownloadFailed, match=r"stopped after 1,000 of 3,072,000 bytes|no answer in time"):
        get("slow", settings=IMPATIENT)
    assert len(server.seen) == IMPATIENT.tries
    assert not server.gave_in


def test_another_size_than_published_is_not_fetched(get: Callable[..., Fetched], tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="has 3,072,000 bytes instead of 5"):
        get("whole", file=replace(FILE, bytes=5))
    assert names(tmp_path) == []


def test_no_server_answers(server: Server, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x"
        with pytest.raises(DownloadFailed, match="cannot be reached"):
            fetch(FILE, tmp_path, urls=[url], settings=QUICK)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/b", "data:,x", "a.pth", "http:///x"])
def test_only_http(url: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not an http or https address"):
        fetch(FILE, tmp_path, urls=[url], settings=QUICK)


MALFORMED = {
    "no_number": "a size that is not a number ('lots')",
    "less_than_nothing": "a size that is not a number ('-5')",
    "many_digits": "a size that is not a number",
    "odd_part": "another part of the file",
    "moved_to_a_bracket": "an invalid address",
    "moved_to_a_port": "an invalid address",
    "moved_nowhere": "answers 302",
}


@pytest.mark.parametrize("behaviour", MALFORMED)
def test_a_malformed_answer_is_reported_and_the_next_mirror_tried(
    get: Callable[..., Fetched], server: Server, behaviour: str
) -> None:
    with pytest.raises(DownloadFailed) as caught:
        get(behaviour)
    assert MALFORMED[behaviour] in str(caught.value)
    assert len(server.seen) == 1, "it would answer the same again"
    assert get(behaviour, "whole").path.read_bytes() == CONTENT


@pytest.mark.parametrize("mirror", ["http://[::1/x", "http://a:many/x", "htp:/x", "http://a\n/x", ""])
def test_a_malformed_mirror_is_passed_over(server: Server, tmp_path: Path, mirror: str) -> None:
    with pytest.raises(BadInput, match="is not an http or https address"):
        fetch(FILE, tmp_path, urls=[mirror], settings=QUICK)
    fetched = fetch(FILE, tmp_path, urls=[mirror, f"{server.url}/whole/face.pth"], settings=QUICK)
    assert fetched.sha256 == SHA
    assert fetched.passed_over == (f"{mirror} is not an http or https address",)


def test_without_a_length_no_more_than_the_known_size_is_taken(get: Callable[..., Fetched], tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="sends more than 3,072,000 bytes"):
        get("endless", file=replace(FILE, bytes=len(CONTENT)))
    with pytest.raises(DownloadFailed, match="sends more than 4,000,000 bytes"):
        get("endless", settings=replace(QUICK, most=4_000_000))
    assert names(tmp_path) == []


def test_a_server_that_drips_is_given_up_in_the_end(
    get: Callable[..., Fetched], server: Server, tmp_path: Path
) -> None:
    with pytest.raises(DownloadFailed, match=r"was not done within 1 s; the part that came is kept"):
        get("dripping", settings=replace(QUICK, total=1))
    assert 0 < (tmp_path / "face.pth.part").stat().st_size < 600
    assert get("whole").path.read_bytes() == CONTENT
    assert server.seen[-1][1] is not None, "it went on from there"


def test_a_damaged_note_beside_a_part_is_ignored(get: Callable[..., Fetched], tmp_path: Path) -> None:
    (tmp_path / "face.pth.part").write_bytes(CONTENT[:HALF])
    (tmp_path / "face.pth.part.json").write_text("[" * 100_000)
    assert get("whole").path.read_bytes() == CONTENT


def test_https_does_not_lead_to_http() -> None:
    request = module.urllib.request.Request("https://example.org/a")
    with pytest.raises(module._Refused, match="not followed"):
        module._Redirects().redirect_request(request, io.BytesIO(), 302, "", {}, "http://example.org/a")


def test_the_usual_proxy_is_asked(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert fetch(FILE, tmp_path, urls=["http://nowhere.invalid/whole/face.pth"], settings=QUICK).sha256 == SHA
    assert server.seen[0][0] == "http://nowhere.invalid/whole/face.pth"


def test_a_full_disk(get: Callable[..., Fetched], monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def full(path: Path, *_: object) -> Iterator[None]:
        raise OSError(FULL[0], "No space left on device")
        yield

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DiskFull, match="disk is full"):
        get("whole")


def test_progress_counts_megabytes(server: Server, tmp_path: Path) -> None:
    seen: list[object] = []

    @contextmanager
    def progress(label: str, total: int, *, start: int = 0) -> Iterator[Callable[[float], None]]:
        seen.extend((label, total, start))
        yield seen.append

    (tmp_path / "face.pth.part").write_bytes(CONTENT[:2_000_000])
    fetch(FILE, tmp_path, urls=[f"{server.url}/whole/face.pth"], settings=QUICK, progress=progress)
    assert seen[:3] == ["face.pth (MB)", 4, 2]
    assert sum(seen[3:]) == pytest.approx(len(CONTENT) / 1e6 - 2)  # type: ignore[arg-type]


# Offline


def test_offline_no_socket_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setenv("UNFADE_OFFLINE", "1")
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path))
    with pytest.raises(BadInput, match="UNFADE_OFFLINE is set, so http://a/b is not opened"):
        fetch(FILE, tmp_path, urls=["http://a/b"], settings=QUICK)
    for command in ("pull", "path"):
        monkeypatch.setattr(sys, "argv", ["unfade", "models", command, "gfpgan-1.4"])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 2
        said = capsys.readouterr().err
        assert "https://github.com/TencentARC/GFPGAN/releases/download/v1.3.0/GFPGANv1.4.pth" in said
        assert "unfade models import GFPGANv1.4.pth --as gfpgan-1.4" in said
    assert names(tmp_path) == []
