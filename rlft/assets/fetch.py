"""One file over HTTP: resumed, retried, checked, and put in place whole or not at all."""

from __future__ import annotations

import http.client
import logging
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlft.assets.digest import digest_of
from rlft.assets.errors import AssetError

log = logging.getLogger(__name__)

BLOCK = 1 << 18
SPARE = 64 << 20  # bytes that a download leaves free on the disk
REMEDY = (
    "Without a direct connection set https_proxy, or fetch on another machine, copy the directory here and name it by "
    "assets.root or RLFT_ASSETS"
)
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that a later attempt may not meet


@dataclass(frozen=True)
class Patience:
    """How long to go on.

    Attributes:
        timeout_s: without a byte, seconds.
        attempts: tries of one file that brought nothing new; one that did starts the count again.
        pause_s: before the second try; doubled before each further one.
        longest_pause_s: the most that is waited, whatever the server asks for.
    """

    timeout_s: float = 30.0
    attempts: int = 6
    pause_s: float = 1.0
    longest_pause_s: float = 60.0


class _PassingError(Exception):
    """What another attempt may mend."""

    def __init__(self, text: str, pause_s: float | None = None) -> None:
        self.pause_s = pause_s
        super().__init__(text)


def fetch(url: str, target: Path, digest: str | None, size: int | None, patience: Patience) -> None:
    """Bring a file here. What was interrupted goes on from ``<target>.partial``, where there is a digest to check.

    Proxies are taken from the environment (``https_proxy``, ``no_proxy``).

    Args:
        url: http or https.
        target: replaced atomically.
        digest: see :mod:`rlft.assets.digest`; None where nobody knows it.
        size: bytes; None where nobody knows.
        patience: timeouts and retries.

    Raises:
        AssetError: it cannot be had, or is not what it should be, or the disk is full.
    """
    partial = target.with_name(f"{target.name}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    if digest is None:
        partial.unlink(missing_ok=True)
    tries, furthest = 0, _length(partial)
    while True:
        before = _length(partial)
        try:
            if size is None or before < size:
                _transfer(url, partial, before, size, patience)
            _verify(url, partial, digest, size, resumed=before > 0)
        except _PassingError as problem:
            tries = 1 if _length(partial) > furthest else tries + 1
            furthest = max(furthest, _length(partial))
            if tries >= patience.attempts:
                raise AssetError(
                    f"{url}: {problem}; given up after {tries} attempts; the same command goes on from here. {REMEDY}"
                ) from problem
            pause = problem.pause_s if problem.pause_s is not None else patience.pause_s * 2 ** (tries - 1)
            log.warning("%s: %s; trying again", url, problem)
            time.sleep(min(pause, patience.longest_pause_s))
        else:
            os.replace(partial, target)
            return


def require_room(place: Path, need: int) -> None:
    """Refuse to start what the disk cannot hold.

    Args:
        place: where it will lie; need not exist.
        need: bytes.

    Raises:
        AssetError: less is free.
    """
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < need + SPARE:
        raise AssetError(
            f"{place}: needs {(need + SPARE) / 1e6:.0f} MB, {free / 1e6:.0f} MB are free; make room or give another "
            "directory: --root DIR"
        )


def _transfer(url: str, partial: Path, start: int, size: int | None, patience: Patience) -> None:
    headers = {"User-Agent": "rlft", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        request = urllib.request.Request(url, headers=headers)
        opener = urllib.request.build_opener()  # of its own: urlopen keeps the proxies of its first call
        with opener.open(request, timeout=patience.timeout_s) as answer:
            _receive(url, answer, partial, start, size)
    except urllib.error.HTTPError as error:
        with error:
            _refused(url, error, partial)
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise AssetError(f"{url}: the server's certificate is not trusted: {error.reason}") from error
        raise _PassingError(f"no connection: {error.reason}") from error
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _PassingError(f"interrupted: {type(error).__name__}: {error}") from error


def _receive(url: str, answer: Any, partial: Path, start: int, size: int | None) -> None:
    if answer.headers.get_content_type() == "text/html":
        raise AssetError(f"{url}: the answer is a web page, not the file; is there a proxy or a login in between?")
    resumed = answer.status == http.client.PARTIAL_CONTENT
    if resumed and not (answer.headers["Content-Range"] or "").startswith(f"bytes {start}-"):
        partial.unlink()
        raise _PassingError("the server resumed at another place; from the beginning")
    have = start if resumed else 0
    said = answer.headers["Content-Length"]
    end = have + int(said) if said is not None and said.isdigit() else None
    if size is not None and end is not None and end != size:
        partial.unlink(missing_ok=True)
        raise AssetError(f"{url}: the server has {end} bytes, the file should have {size}; it is not the pinned one")
    require_room(partial, (end or size or have) - have)
    with partial.open("ab" if resumed else "wb") as file:
        while block := answer.read1(BLOCK):
            have += len(block)
            if size is not None and have > size:
                break  # told by the check that follows
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    if have < (end or size or 0):
        raise _PassingError(f"the connection ended after {have} of {end or size} bytes")


def _refused(url: str, error: urllib.error.HTTPError, partial: Path) -> None:
    if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        partial.unlink(missing_ok=True)
        raise _PassingError("what was here is longer than the file; from the beginning") from error
    if error.code in PASSING:
        asked = error.headers.get("Retry-After", "")
        raise _PassingError(f"HTTP {error.code} {error.reason}", float(asked) if asked.isdigit() else None) from error
    raise AssetError(f"{url}: HTTP {error.code} {error.reason}") from error


def _verify(url: str, partial: Path, digest: str | None, size: int | None, *, resumed: bool) -> None:
    if digest is None:
        return
    found, have = digest_of(partial, digest.partition(":")[0]), _length(partial)
    if found == digest and (size is None or have == size):
        return
    partial.unlink()
    if resumed:
        raise _PassingError("the joined parts are not the file; from the beginning")
    raise AssetError(
        f"{url}: its digest is {found} ({have} bytes), not {digest}; it was deleted. Try again; if it stays so, "
        "the file was changed where it comes from"
    )


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
