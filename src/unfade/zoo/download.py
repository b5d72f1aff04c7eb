"""Downloads over http(s): resumed where they stopped, from the first mirror that has the file, and checked by hash.

Uses only the standard library; proxies come from the usual environment variables (http_proxy, https_proxy, no_proxy).
"""

import http.client
import json
import math
import re
import time
import urllib.error
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib import request as web
from urllib.parse import urlsplit

from unfade.atomic import atomic_write, room_for
from unfade.errors import BadCheckpoint, BadInput, UnfadeError
from unfade.progress import Progress, silent
from unfade.store.checkpoints import read_object, sha256_of
from unfade.zoo.models import offline
from unfade.zoo.published import Download

MEGABYTE = 1_000_000  # bytes, the unit of progress
NUMBER = r"\d{1,18}"  # a number of bytes
PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP errors that may be temporary


class DownloadFailed(UnfadeError):
    """No address gave the file. The message says what each of them answered."""


@dataclass(frozen=True)
class DownloadSettings:
    """The limits of a download."""

    timeout: float = 30.0  # seconds without a byte
    total: float = 6 * 3600.0  # seconds for one file, all addresses and tries together
    most: int = 20_000_000_000  # bytes, the largest file where its size is not known in advance
    tries: int = 4  # at each address; every try continues where the last one stopped
    pause: float = 1.0  # seconds before the second try, doubled before each further one
    chunk: int = 1 << 20  # bytes read at once


@dataclass(frozen=True)
class Fetched:
    """A file that was downloaded completely."""

    path: Path
    url: str  # the address that gave it; "": the whole file was there already
    sha256: str
    passed_over: tuple[str, ...] = ()  # the addresses tried before it, each with why it gave nothing


class _Again(Exception):
    """This address failed, but may work in a moment."""


class _Refused(Exception):
    """This address has no such file."""


def fetch(
    download: Download, folder: Path, settings: DownloadSettings, *, urls: Sequence[str], progress: Progress = silent
) -> Fetched:
    """Download a file into `folder` and check its hash; a part that a killed run left is resumed.

    Raises BadInput offline or for other addresses than http(s), DownloadFailed when every address failed, BadCheckpoint
    when the downloaded file has another hash (it is deleted, and nothing else is).
    """
    _check_addresses(urls)
    part, clock = _Part(folder / f"{download.file}.part"), _Clock(settings.total)
    failures: list[str] = []
    is_wrong = False  # whether an address gave another file
    for url in urls:
        try:
            _bring(url, part, download, progress, settings, clock)
            return replace(_checked(part, download, url), passed_over=tuple(failures))
        except (_Refused, _Again, BadCheckpoint) as error:
            failures.append(f"{url} {error}")
            is_wrong = is_wrong or isinstance(error, BadCheckpoint)
    reasons = "; ".join(failures)
    kind = BadCheckpoint if is_wrong else DownloadFailed
    raise kind(
        f"{download.file} could not be fetched: {reasons}; try again later, or name another address as `mirror`."
    )


def _check_addresses(urls: Sequence[str]) -> None:
    if offline():
        raise BadInput(f"UNFADE_OFFLINE is set, so {urls[0]} is not opened; fetch it elsewhere and import it.")
    if not any(map(_is_address, urls)):
        raise BadInput(f"{urls[0]} is not an http or https address; only these are fetched.")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:  # a stray bracket or an invalid port
        return False


class _Clock:
    """The time limit for one file."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.end = seconds, time.monotonic() + seconds

    def check(self) -> None:
        """Raises _Refused when the time is over."""
        if time.monotonic() > self.end:
            raise _Refused(f"was not done within {self.seconds:,.0f} s; the part that came is kept for the next try")


def _bring(
    url: str, part: "_Part", download: Download, progress: Progress, settings: DownloadSettings, clock: _Clock
) -> None:
    """Try one address until the file is complete. Raises _Refused, or _Again after the last try."""
    if not _is_address(url):
        raise _Refused("is not an http or https address")
    for attempt in range(settings.tries):
        if download.bytes is not None and part.size == download.bytes:
            return
        clock.check()
        try:
            _transfer(url, part, download, progress, settings, clock)
            return
        except _Again:
            if attempt + 1 == settings.tries:
                raise
            time.sleep(settings.pause * 2**attempt)


def _checked(part: "_Part", download: Download, url: str) -> Fetched:
    found = sha256_of(part.path)
    if download.sha256 is not None and found != download.sha256:
        part.discard()
        raise BadCheckpoint(f"gave a file of sha256 {found} instead of {download.sha256}")
    return Fetched(part.path, url, found)


def _transfer(
    url: str, part: "_Part", download: Download, progress: Progress, settings: DownloadSettings, clock: _Clock
) -> None:
    """Make one request and append the missing bytes to the part."""
    request = web.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "unfade"})
    begun = part.resume(request, url, known=download.sha256 is not None)
    with _answer(request, part, settings.timeout) as response:
        if response is None:
            return
        start, total = _extent(response, begun)
        if None not in (total, download.bytes) and total != download.bytes:
            raise _Refused(f"has {total:,} bytes instead of {download.bytes:,}")
        most = download.bytes or settings.most
        part.begin(url, response.headers.get("ETag", ""), start)
        with progress(f"{download.file} (MB)", math.ceil((total or 0) / MEGABYTE), start=start // MEGABYTE) as advance:
            for chunk in _chunks(response, settings.chunk):
                if part.size + len(chunk) > most:
                    part.discard()
                    raise _Refused(f"sends more than {most:,} bytes")
                part.append(chunk)
                clock.check()
                advance(len(chunk) / MEGABYTE)
    if total is not None and part.size != total:
        raise _Again(f"stopped after {part.size:,} of {total:,} bytes")


@contextmanager
def _answer(request: web.Request, part: "_Part", timeout: float) -> Iterator[Any]:
    """The server's answer; None if it says that nothing is missing. Raises _Again or _Refused."""
    try:
        response = _opener().open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with closing(error):
            if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{part.size}":
                yield None
                return
            if error.code == 416:
                part.discard()
            kind = _Again if error.code in (*PASSING, 416) else _Refused
            raise kind(f"answers {error.code} {error.reason}") from error
    except (ValueError, http.client.InvalidURL) as error:
        raise _Refused(f"cannot be asked for ({error})") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Again(_reason(error)) from error
    with response:
        yield response


def _extent(response: Any, begun: int) -> tuple[int, int | None]:
    """(offset of the first byte in the answer, bytes of the whole file or None if the server does not say)."""
    if response.status == 206:
        extent = re.fullmatch(rf"bytes ({NUMBER})-\d+/({NUMBER})", response.headers.get("Content-Range", ""), re.ASCII)
        if extent is None or int(extent[1]) != begun:
            raise _Refused("answers with another part of the file than the one asked for")
        return begun, int(extent[2])
    length = response.headers.get("Content-Length")
    if length is not None and not re.fullmatch(NUMBER, length.strip(), re.ASCII):
        raise _Refused(f"gives a size that is not a number ({length[:40]!r})")
    return 0, None if length is None else int(length)


def _chunks(response: Any, size: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read1(size)  # only what has arrived, so that a slow server is noticed
        except (OSError, http.client.HTTPException) as error:
            raise _Again(_reason(error)) from error
        if not chunk:
            return
        yield chunk


class _Part:
    """The bytes received so far, and a record of the version of the file to which they belong."""

    def __init__(self, path: Path):
        self.path = path
        self.about = path.with_name(path.name + ".json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def resume(self, request: web.Request, url: str, *, known: bool) -> int:
        """Make `request` ask for the missing bytes only; returns how many bytes are there.

        The server sends the whole file if it has changed (If-Range). Where it gives no version, the rest is trusted
        only if the hash of the whole file is known.
        """
        about = read_object(self.about)
        etag = about.get("etag", "") if about.get("url") == url else ""
        if not self.size or not (etag or known):
            return 0
        request.add_header("Range", f"bytes={self.size}-")
        if etag:
            request.add_header("If-Range", etag)
        return self.size

    def begin(self, url: str, etag: str, start: int) -> None:
        """Keep the first `start` bytes and record the version; weak tags are not used, as they allow other bytes."""
        with room_for(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.truncate(start)
        atomic_write(self.about, json.dumps({"url": url, "etag": "" if etag.startswith("W/") else etag}))

    def append(self, chunk: bytes) -> None:
        with room_for(self.path), self.path.open("ab") as file:
            file.write(chunk)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.about.unlink(missing_ok=True)


class _Redirects(web.HTTPRedirectHandler):
    """Follows redirects, but never from https to another protocol, and only to valid addresses."""

    def http_error_302(self, req: web.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except (ValueError, http.client.InvalidURL) as error:
            fp.close()
            raise _Refused(f"leads to an invalid address ({error})") from error

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: web.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> web.Request | None:
        allowed = ("https",) if req.type == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in allowed:
            fp.close()
            raise _Refused(f"leads to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> web.OpenerDirector:
    """An opener of http and https only: no file:, ftp: or data: addresses, wherever a server redirects."""
    opener = web.OpenerDirector()
    kinds = (web.ProxyHandler, web.HTTPHandler, web.HTTPSHandler, web.HTTPErrorProcessor, web.HTTPDefaultErrorHandler)
    for kind in (*kinds, _Redirects):
        opener.add_handler(kind())
    return opener


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return "no answer in time" if isinstance(cause, TimeoutError) else f"cannot be reached ({cause})"


def discard_parts(folder: Path, download: Download) -> None:
    """Delete the files of `fetch`, once they are converted."""
    _Part(folder / f"{download.file}.part").discard()
