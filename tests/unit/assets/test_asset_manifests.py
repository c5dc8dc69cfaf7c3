"""What is pinned, and where assets are looked for."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from rlft.assets.commands import main
from rlft.assets.sources import MANIFESTS, AssetError, all_sources, assets_root, check, read_source, safe_name
from tools.pin_assets import pinned

SOURCES = {source.name: source for source in all_sources()}


def test_the_setting_wins_over_the_variable_and_that_over_the_default(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RLFT_ASSETS", raising=False)
    assert assets_root() is None
    assert main(["--check"], sources=[]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/.cache/rlft/assets\n")  # a download would fill it
    (tmp_path / ".cache/rlft/assets").mkdir(parents=True)
    assert assets_root() == tmp_path / ".cache/rlft/assets"
    monkeypatch.setenv("RLFT_ASSETS", "~/elsewhere")
    assert assets_root() == tmp_path / "elsewhere"
    assert assets_root("~/said") == tmp_path / "said"
    monkeypatch.setenv("RLFT_ASSETS", "")
    assert assets_root("") == tmp_path / ".cache/rlft/assets"


def test_every_manifest_is_whole():
    assert set(SOURCES) == {"widowx", "bridge", "put_on_plate"}
    for source in SOURCES.values():
        assert source.licence.strip()
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", source.origin)
        for entry in source.entries:
            assert re.fullmatch(r"git:[0-9a-f]{40}|sha256:[0-9a-f]{64}", entry.digest), entry
            assert (entry.url is None) == (source.archive is not None)
            if entry.url:
                assert source.origin.split("@")[1] in entry.url
                assert " " not in entry.url


def test_the_archives_are_those_of_the_installed_simulator():
    data = pytest.importorskip("mani_skill.utils.assets.data")
    for name, uid in (("widowx", "widowx250s"), ("bridge", "bridge_v2_real2sim")):
        theirs, ours = data.DATA_SOURCES[uid], SOURCES[name].archive
        assert ours.url == theirs.url
        assert ours.digest == (theirs.checksum and f"sha256:{theirs.checksum}")
        assert SOURCES[name].folder == f"maniskill/data/{theirs.target_path}"


def test_what_the_family_shows_is_pinned():
    paths = [entry.path for entry in SOURCES["put_on_plate"].entries]
    counts = {
        "more_carrot/*/collision.obj": 25,
        "more_plate/*/collision.obj": 17,
        "more_table/imgs/*.png": 21,
        "more_table/textures/*.png": 21,
        "*/model_db.json": 3,
    }
    assert {pattern: sum(Path(p).match(pattern) for p in paths) for pattern in counts} == counts


def test_the_folder_of_the_tests_is_told_from_the_originals():
    from assets_at import assets_root as of_the_tests

    found = {name: check(source, of_the_tests()) for name, source in SOURCES.items()}
    assert found["widowx"].complete
    assert {e.path for e in found["bridge"].differ} <= {f"stages/bridge_table_1_v{i}.glb" for i in (1, 2)}
    absent = {e.path for e in found["put_on_plate"].missing}
    assert absent <= {
        "more_carrot/010_toy bear_1/textured.glb",
        "more_carrot/017_travel cup_1/textured.glb",
        "more_plate/005_sheet metal_1/textured.glb",
    }
    assert not found["put_on_plate"].differ
    for path in absent:  # each has a stand-in
        assert path.replace(".glb", ".obj") in found["put_on_plate"].others


@pytest.mark.parametrize("name", ["", "/etc/x", "a/../../x", "a\\b", "C:x", "a\0b", ".."])
def test_a_name_that_leads_elsewhere_is_refused(name):
    with pytest.raises(AssetError, match="not a plain relative path"):
        safe_name(name)


def test_a_manifest_cannot_lead_elsewhere(tmp_path):
    tree = json.loads((MANIFESTS / "widowx.json").read_text())
    tree["files"] = {"../../evil": ["git:" + "0" * 40, 1]}
    (tmp_path / "x.json").write_text(json.dumps(tree))
    with pytest.raises(AssetError, match="not a plain relative path"):
        read_source(tmp_path / "x.json")


def test_pinning_reads_what_git_has(tmp_path):
    def git(*words):
        who = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
        return subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    (tmp_path / "a b").mkdir()
    (tmp_path / "a b/ü.txt").write_text("hello")
    (tmp_path / "left out").write_text("x")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "x")
    commit, files = pinned({"a b": "there"}, str(tmp_path / ".git"))
    assert commit == git("rev-parse", "HEAD").strip()
    assert files == {"there/ü.txt": ["git:" + git("hash-object", "a b/ü.txt").strip(), 5]}
