"""Whole sources over a real connection: what breaks off, is hostile or differs; refusals; the command line."""

import hashlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from assets.asset_server import serving
from filelock import FileLock

from rlft.assets import commands
from rlft.assets.install import ATTEMPTS, WORK, install
from rlft.assets.sources import RECEIPT, Archive, AssetError, Entry, Source, check, digest_of
from rlft.errors import command

ROOT = Path(__file__).resolve().parents[3]
FILES = {"stages/a table.glb": b"glTF" * 5000, "custom/info.json": b'{"x": 1}'}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("pooch.core.time.sleep", lambda _seconds: None)  # between attempts
    with serving() as place:
        yield place


def blob(content):
    return "git:" + hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def zipped(files, top="dataset-1.0", method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as packed:
        for name, content in files.items():
            packed.writestr(f"{top}/{name}" if top else name, content)
    return out.getvalue()


def entries(files, url=None):
    return tuple(
        Entry(name, blob(content), len(content), f"{url}/{name.replace(' ', '%20')}" if url else None)
        for name, content in files.items()
    )


def loose(server, files=FILES):
    for name, content in files.items():
        server.put(f"/loose/{name}", content)
    return Source("loose", "files one by one", "data/loose", "x/y@1", "MIT", entries(files, f"{server.url}/loose"))


def packed(server, body, *, files=FILES, exact=False, digest=True):
    url = server.put("/packed.zip", body)
    sha = f"sha256:{hashlib.sha256(body).hexdigest()}" if digest else None
    archive = Archive(url, sha, exact, ("custom/info.json",))
    return Source("packed", "a zip", "data/dataset", "x/y@1", "CC0", entries(files), archive)


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_files_come_one_by_one_and_only_those_that_are_not_whole(server, tmp_path):
    source = loose(server)
    install([source], tmp_path)
    assert contents(tmp_path) == {f"data/loose/{name}": content for name, content in FILES.items()}
    assert check(source, tmp_path).complete
    server.asked.clear()
    install([source], tmp_path)
    assert server.asked == []
    (tmp_path / "data/loose/custom/info.json").write_bytes(b'{"x": 2}')
    (tmp_path / "data/loose/mine.txt").write_bytes(b"mine")
    state = check(source, tmp_path)
    assert [e.path for e in state.differ] == ["custom/info.json"]
    assert (state.missing, state.others) == ([], ["mine.txt"])
    install([source], tmp_path)
    assert server.asked == ["/loose/custom/info.json"]
    assert (tmp_path / "data/loose/mine.txt").read_bytes() == b"mine"


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("digest", [True, False])
def test_an_archive_is_unpacked_without_its_own_folder(server, tmp_path, exact, digest):
    source = packed(server, zipped(FILES), exact=exact, digest=digest)
    install([source], tmp_path)
    found = contents(tmp_path / source.folder)
    assert RECEIPT in found
    assert {k: v for k, v in found.items() if k != RECEIPT} == FILES
    assert not (tmp_path / WORK).exists()
    assert check(source, tmp_path).complete


def test_two_archives_do_not_mix(server, tmp_path):
    others = {"custom/info.json": b"{}"}
    second = packed(server, zipped(others), files=others, exact=True)
    url = server.put("/second.zip", server.things["/packed.zip"].body)
    second = replace(second, name="second", folder="data/second", archive=replace(second.archive, url=url))
    first = packed(server, zipped(FILES), exact=True)
    install([first, second], tmp_path)
    assert check(first, tmp_path).complete
    assert check(second, tmp_path).complete


def test_the_folder_with_the_right_name_is_taken_among_several(server, tmp_path):
    noise = {"__MACOSX/._x": b"noise", ".DS_Store": b"noise", "docs/readme": b"other"}
    files = {f"dataset/{k}": v for k, v in FILES.items()} | noise
    source = packed(server, zipped(files, top=""))
    install([source], tmp_path)
    assert set(contents(tmp_path / source.folder)) == {*FILES, RECEIPT}


def test_a_checked_archive_is_what_later_checks_compare_with(server, tmp_path):
    """The digests of another repository tell stand-ins apart, but the archive's own content is the original."""
    newer = FILES | {"custom/info.json": b'{"x": 3}', "custom/more.obj": b"v 0 0 0"}
    source = packed(server, zipped(newer))
    directory = tmp_path / source.folder
    directory.mkdir(parents=True)
    (directory / "stages").mkdir()
    (directory / "stages/a table.glb").write_bytes(b"a box")
    before = check(source, tmp_path)
    assert [e.path for e in before.differ] == ["stages/a table.glb"]
    assert before.against == "x/y@1"
    install([source], tmp_path)
    after = check(source, tmp_path)
    assert after.complete
    assert len(after.whole) == 3
    assert RECEIPT in after.against
    (directory / "custom/more.obj").write_bytes(b"v 1 0 0")
    assert [e.path for e in check(source, tmp_path).differ] == ["custom/more.obj"]
    (directory / RECEIPT).write_text("{")
    assert check(source, tmp_path).against == "x/y@1"


def test_an_archive_of_another_content_changes_nothing(server, tmp_path):
    source = packed(server, zipped(FILES | {"custom/info.json": b"{}"}), exact=True, digest=False)
    with pytest.raises(AssetError, match=r"1 files are not those of x/y@1, among them custom/info.json"):
        install([source], tmp_path)
    assert not (tmp_path / source.folder).exists()
    with pytest.raises(AssetError, match=r"holds no custom/info.json; it is another archive"):
        install([packed(server, zipped({"a": b"1"}))], tmp_path)
    assert not (tmp_path / source.folder).exists()


def test_a_broken_connection_is_tried_again_and_what_is_whole_is_not_fetched_again(server, tmp_path):
    source = loose(server)
    server.things["/loose/stages/a table.glb"].cuts = [7000, 8000]
    server.things["/loose/custom/info.json"].statuses = [503, 429] + [500] * ATTEMPTS
    with pytest.raises(AssetError, match=r"500 Server Error.*given up after 5 attempts; the same command goes on"):
        install([source], tmp_path)
    assert contents(tmp_path) == {"data/loose/stages/a table.glb": FILES["stages/a table.glb"]}
    server.asked.clear()
    install([source], tmp_path)
    assert set(server.asked) == {"/loose/custom/info.json"}
    assert check(source, tmp_path).complete
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()} == {0o644}


def test_silence_is_a_timeout(server, tmp_path):
    source = loose(server)
    server.things["/loose/custom/info.json"].stalls = [30.0]
    install([source], tmp_path, 0.3)
    assert check(source, tmp_path).complete


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"body": b"{}"}, r"its digest is git:[0-9a-f]+, not git:[0-9a-f]+; it was deleted"),
        ({"body": b"\n<!DOCTYPE html><p>log in"}, "a web page, not the file; is there a proxy or a login"),
        ({"body": b"", "statuses": [404]}, "HTTP 404 "),
        ({"body": b"", "statuses": [403]}, "HTTP 403 "),
    ],
)
def test_what_another_attempt_cannot_mend_is_named_at_once_and_changes_nothing(server, tmp_path, how, message):
    stand_in = tmp_path / "data/loose/custom/info.json"
    stand_in.parent.mkdir(parents=True)
    stand_in.write_text("before")
    source = loose(server)
    server.put("/loose/custom/info.json", **how)
    with pytest.raises(AssetError, match=message):
        install([replace(source, entries=source.entries[1:])], tmp_path)
    assert contents(tmp_path) == {"data/loose/custom/info.json": b"before"}
    assert len(server.asked) == 1


def with_member(name, content=b"x", mode=stat.S_IFREG | 0o644, **flags):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("top/fine.txt", "fine")
        info = zipfile.ZipInfo("top/plain")
        info.external_attr = mode << 16
        archive.writestr(info, content)
    raw = out.getvalue()
    swap = name.encode()
    assert len(swap) == len(b"top/plain")
    raw = raw.replace(b"top/plain", swap)
    if flags.get("encrypted"):
        at = raw.index(b"PK\x01\x02", raw.index(b"PK\x01\x02") + 1)
        raw = raw[: at + 8] + b"\x01" + raw[at + 9 :]
    return raw


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (with_member("../../../"[:8] + "e"), "not a plain relative path"),
        (with_member("/etc/evil"), "not a plain relative path"),
        (with_member("C:/a/evil"), "not a plain relative path"),
        (with_member("top\\a\\b.."), "not a plain relative path"),
        (with_member("top/plain", b"/etc/passwd", stat.S_IFLNK | 0o777), "a link or a device"),
        (with_member("top/plain", b"", stat.S_IFIFO | 0o644), "a link or a device"),
        (with_member("top/plain", encrypted=True), "is encrypted"),
        (zipped({"bomb": bytes(8 << 20)}), "times its size"),
        (b"PK\x03\x04 not a zip", "not a whole zip"),
        (zipped(FILES)[:-100], "not a whole zip"),
        (zipped(FILES, method=zipfile.ZIP_STORED).replace(b"glTFglTF", b"glTFglTX", 1), "not a whole zip"),
    ],
    ids=["upwards", "absolute", "drive", "backslash", "symlink", "fifo", "encrypted", "bomb", "junk", "cut", "flipped"],
)
def test_a_hostile_or_damaged_archive_writes_nothing_outside(server, tmp_path, body, why):
    inside = tmp_path / "root"
    source = packed(server, body, digest=False)
    with pytest.raises(AssetError, match=why):
        install([source], inside)
    assert not (inside / source.folder).exists()
    assert {path.name for path in tmp_path.iterdir()} == {"root"}
    assert not (inside / WORK).exists()


def test_two_downloads_do_not_meet(server, tmp_path):
    (tmp_path / WORK).mkdir()
    with FileLock(tmp_path / WORK / ".lock"), pytest.raises(AssetError, match="another process is downloading into it"):
        install([loose(server)], tmp_path)
    install([loose(server)], tmp_path)


def test_a_digest_is_what_git_says(tmp_path):
    (tmp_path / "x").write_bytes(FILES["stages/a table.glb"])
    words = ["git", "hash-object", str(tmp_path / "x")]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert digest_of(tmp_path / "x", "git") == f"git:{said.strip()}"


def test_a_place_that_cannot_be_written_is_said(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AssetError, match="give a directory that can be written"):
        install([loose(server)], tmp_path / "file" / "assets")


def test_the_disk_is_asked_before_anything_is_fetched(server, tmp_path):
    source = loose(server)
    huge = replace(source, entries=tuple(replace(entry, size=10**15) for entry in source.entries))
    with pytest.raises(AssetError, match="make room"):
        install([huge], tmp_path)
    assert server.asked == []


def test_the_command_line(server, tmp_path, capsys):
    sources = [loose(server), packed(server, zipped(FILES))]
    root = ["--root", str(tmp_path / "with space")]
    assert commands.main(["--list"], sources=sources) == 0
    assert "2 files, 0.0 MB, into data/loose" in capsys.readouterr().out
    assert commands.main(root, sources=sources) == 2
    said = capsys.readouterr().out
    assert "CC0" in said
    assert said.endswith(f"-m rlft assets --accept-licences --root '{tmp_path}/with space'\n")
    assert server.asked == []
    assert not (tmp_path / "with space").exists()
    assert commands.main([*root, "--check"], sources=sources) == 1
    assert "missing: stages/a table.glb" in capsys.readouterr().out
    assert commands.main([*root, "--only", "loose", "--accept-licences"], sources=sources) == 0
    said = capsys.readouterr().out
    assert "loose: whole, 2 of 2" in said
    assert "CC0" not in said
    assert commands.main([*root, "--check"], sources=sources) == 1
    assert commands.main([*root, "--accept-licences"], sources=sources) == 0
    assert commands.main([*root, "--check"], sources=sources) == 0
    with pytest.raises(SystemExit, match="2"):
        commands.main([*root, "--only", "nothing"], sources=sources)
    assert "invalid choice: 'nothing' (choose from 'loose', 'packed')" in capsys.readouterr().err


def test_without_a_terminal_nothing_is_asked(tmp_path):
    words, env = [sys.executable, str(ROOT / "scripts/download_assets.py")], {"RLFT_ASSETS": str(tmp_path / "assets")}
    how = {"capture_output": True, "text": True, "timeout": 60, "check": False}
    done = subprocess.run(words, env=os.environ | env, stdin=subprocess.DEVNULL, **how)
    assert done.returncode == 2, done.stderr
    assert "CC BY-NC 4.0" in done.stdout
    assert f"Accept these terms with:\n  {command('assets', '--accept-licences')}\n" in done.stdout
    assert not (tmp_path / "assets").exists()


def test_an_interruption_leaves_what_the_next_run_goes_on_from(server, tmp_path):
    """Ctrl-C in a real process, in the middle of the second file."""
    manifest = {
        "name": "slow", "what": "files", "folder": "slow", "licence": "MIT", "repository": "x/y", "commit": "1",
        "url": f"{server.url}/loose/", "files": {name: [blob(x), len(x)] for name, x in FILES.items()},
    }  # fmt: skip
    (tmp_path / "slow.json").write_text(json.dumps(manifest))
    loose(server)
    server.things["/loose/custom/info.json"].stalls = [60.0]
    code = (
        "import sys; from pathlib import Path; from rlft.assets import commands, sources\n"
        "source = sources.read_source(Path(sys.argv[1]))\n"
        "sys.exit(commands.main(['--accept-licences', '--root', sys.argv[2]], sources=[source]))"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "slow.json"), str(tmp_path / "root")]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=ROOT) as child:
        while len(server.asked) < 2:
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        assert "interrupted; the same command goes on from here" in child.stderr.read()
    assert child.returncode == 130
    assert contents(tmp_path / "root") == {"slow/stages/a table.glb": FILES["stages/a table.glb"]}
    assert subprocess.run(words, cwd=ROOT, capture_output=True, check=False).returncode == 0
    assert server.asked == ["/loose/stages/a%20table.glb"] + ["/loose/custom/info.json"] * 2


def test_a_directory_marked_read_only_is_left_alone_also_by_root(server, tmp_path):
    root = tmp_path / "assets"
    root.mkdir(mode=0o555)
    with pytest.raises(AssetError, match=r"assets is read-only; make it writable.*--root DIR"):
        install([loose(server)], root)
    assert list(root.iterdir()) == server.asked == []


def test_what_cannot_be_reached_says_what_to_do_and_leaves_nothing_behind(server, tmp_path):
    source = loose(server)
    away = replace(source, entries=tuple(replace(e, url="http://127.0.0.1:9/x") for e in source.entries))
    with pytest.raises(AssetError, match=r"given up after 5 attempts.*https_proxy.*RLFT_ASSETS"):
        install([away], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--timeout", "0"], "0: must be a number above 0"),
        (["--timeout", "nan"], "nan: must be a number above 0"),
        (["--timeout", "soon"], "--timeout: invalid float value: 'soon'"),
        (["--root", __file__, "--accept-licences"], "a file; give a directory"),
        (["--root", __file__, "--check"], "a file; give a directory"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_done(server, capsys, words, said):
    try:
        status = commands.main(words, sources=[loose(server)])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert said in capsys.readouterr().err
    assert server.asked == []
