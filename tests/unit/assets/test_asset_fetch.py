"""One file over a real connection that breaks in every way a network does."""

import hashlib
import subprocess

import pytest

from rlft.assets.digest import digest_of, matches
from rlft.assets.errors import AssetError
from rlft.assets.fetch import SPARE, Patience, fetch, require_room

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
SIZE = len(BODY)
QUICK = Patience(timeout_s=5.0, attempts=3, pause_s=0.01)


def get(server, target, *, digest=SHA, size=SIZE, patience=QUICK, **how):
    url = server.put("/a file", how.pop("body", BODY), **how).replace(" ", "%20")
    fetch(url, target, digest, size, patience)


def ranges(server):
    return [asked for _, asked in server.asked]


def test_a_digest_is_what_git_says(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(BODY)
    said = subprocess.run(["git", "hash-object", str(path)], capture_output=True, text=True, check=True).stdout.strip()
    assert digest_of(path, "git") == f"git:{said}"
    assert matches(path, f"git:{said}", len(BODY))
    assert not matches(path, f"git:{said}", len(BODY) + 1)
    assert not matches(tmp_path / "y", f"git:{said}")


@pytest.mark.parametrize("size", [len(BODY), None])
@pytest.mark.parametrize("says_length", [True, False])
def test_a_whole_file_arrives_in_one_request(server, tmp_path, size, says_length):
    get(server, tmp_path / "deep" / "x", size=size, says_length=says_length)
    assert (tmp_path / "deep" / "x").read_bytes() == BODY
    assert ranges(server) == [None]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x"]


def test_a_broken_connection_goes_on_where_it_ended(server, tmp_path):
    get(server, tmp_path / "x", cuts=[300_000, 200_000])
    assert (tmp_path / "x").read_bytes() == BODY
    assert ranges(server) == [None, "bytes=300000-", "bytes=500000-"]


def test_progress_starts_the_count_of_attempts_again(server, tmp_path):
    get(server, tmp_path / "x", cuts=[100_000] * 8)
    assert (tmp_path / "x").read_bytes() == BODY
    assert len(server.asked) == 9 > QUICK.attempts


def test_another_process_goes_on_where_the_first_ended(server, tmp_path):
    with pytest.raises(AssetError, match=r"the same command goes on from here"):
        get(server, tmp_path / "x", cuts=[400_000, 0, 0])
    assert not (tmp_path / "x").exists()
    assert (tmp_path / "x.partial").stat().st_size == 400_000
    server.asked.clear()
    get(server, tmp_path / "x")
    assert ranges(server) == ["bytes=400000-"]
    assert (tmp_path / "x").read_bytes() == BODY


def test_a_server_without_ranges_starts_over(server, tmp_path):
    get(server, tmp_path / "x", cuts=[400_000], ranges=False)
    assert (tmp_path / "x").read_bytes() == BODY
    assert ranges(server) == [None, "bytes=400000-"]


def test_a_server_that_resumes_at_another_place_is_not_believed(server, tmp_path):
    get(server, tmp_path / "x", cuts=[400_000], wrong_start=True)
    assert (tmp_path / "x").read_bytes() == BODY
    assert ranges(server) == [None, "bytes=400000-", None]


def test_parts_that_do_not_fit_are_thrown_away(server, tmp_path):
    (tmp_path / "x.partial").write_bytes(b"of another file" * 100)
    get(server, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == BODY
    assert ranges(server) == ["bytes=1500-", None]


@pytest.mark.parametrize("size", [len(BODY), None])
def test_a_part_longer_than_the_file_is_thrown_away(server, tmp_path, size):
    (tmp_path / "x.partial").write_bytes(BODY + b"more")
    get(server, tmp_path / "x", size=size)
    assert (tmp_path / "x").read_bytes() == BODY


def test_a_part_that_is_whole_needs_no_request(server, tmp_path):
    (tmp_path / "x.partial").write_bytes(BODY)
    get(server, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == BODY
    assert server.asked == []


def test_wrong_content_is_named_and_deleted(server, tmp_path):
    (tmp_path / "x").write_bytes(b"what was there before")
    with pytest.raises(AssetError, match=r"its digest is sha256:[0-9a-f]+ \(1048576 bytes\), not sha256:"):
        get(server, tmp_path / "x", body=BODY[::-1])
    assert (tmp_path / "x").read_bytes() == b"what was there before"
    assert not (tmp_path / "x.partial").exists()
    assert len(server.asked) == 1


@pytest.mark.parametrize("says_length", [True, False])
@pytest.mark.parametrize("body", [BODY + b"x", BODY[:-1]])
def test_another_length_is_no_success(server, tmp_path, body, says_length):
    with pytest.raises(AssetError):
        get(server, tmp_path / "x", body=body, says_length=says_length)
    assert not (tmp_path / "x").exists()


def test_a_web_page_is_not_taken_for_the_file(server, tmp_path):
    with pytest.raises(AssetError, match=r"a web page, not the file; is there a proxy or a login"):
        get(server, tmp_path / "x", body=b"<html>log in</html>", kind="text/html; charset=utf-8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [404, 403, 410])
def test_what_is_not_there_is_not_asked_for_twice(server, tmp_path, status):
    with pytest.raises(AssetError, match=f"HTTP {status}"):
        get(server, tmp_path / "x", statuses=[status])
    assert len(server.asked) == 1


def test_a_busy_server_is_asked_again_when_it_says(server, tmp_path):
    get(server, tmp_path / "x", statuses=[503, 429], headers={"Retry-After": "0"}, patience=Patience(5.0, 3, 30.0))
    assert (tmp_path / "x").read_bytes() == BODY


def test_nobody_waits_as_long_as_a_server_likes(server, tmp_path):
    patience = Patience(5.0, attempts=3, pause_s=0.01, longest_pause_s=0.02)
    get(server, tmp_path / "x", statuses=[503], headers={"Retry-After": "86400"}, patience=patience)
    assert (tmp_path / "x").read_bytes() == BODY


def test_a_server_that_stays_broken_is_given_up(server, tmp_path):
    with pytest.raises(AssetError, match=r"HTTP 500 .*; given up after 3 attempts"):
        get(server, tmp_path / "x", statuses=[500] * 9)
    assert len(server.asked) == 3


def test_silence_is_a_timeout(server, tmp_path):
    get(server, tmp_path / "x", stalls=[30.0], patience=Patience(timeout_s=0.3, attempts=2, pause_s=0.01))
    assert (tmp_path / "x").read_bytes() == BODY
    assert len(server.asked) == 2


def test_nobody_listens(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(AssetError, match="no connection"):
        fetch("http://127.0.0.1:9/x", tmp_path / "x", SHA, None, Patience(1.0, 2, 0.01))


def test_without_a_digest_nothing_is_resumed(server, tmp_path):
    (tmp_path / "x.partial").write_bytes(BODY[:1000])
    get(server, tmp_path / "x", digest=None, size=None)
    assert (tmp_path / "x").read_bytes() == BODY
    assert ranges(server) == [None]


def test_proxies_of_the_environment_are_used(server, tmp_path, monkeypatch):
    server.put("/x", BODY)
    monkeypatch.setenv("http_proxy", server.url)
    fetch("http://assets.invalid/x", tmp_path / "x", SHA, len(BODY), QUICK)
    assert server.asked == [("http://assets.invalid/x", None)]
    assert (tmp_path / "x").read_bytes() == BODY


def test_a_full_disk_is_said_before(tmp_path):
    require_room(tmp_path / "not" / "there", 0)
    with pytest.raises(AssetError, match=r"needs 10000000067 MB, \d+ MB are free; make room"):
        require_room(tmp_path / "not" / "there", 10**16)
    assert SPARE == 64 * 2**20
