"""What a download refuses before it begins, and what it says where nothing can be reached."""

from dataclasses import replace

import pytest
from assets.test_asset_install import QUICK, loose

from rlft.assets import commands
from rlft.assets.errors import AssetError
from rlft.assets.install import WORK, install


def test_a_directory_marked_read_only_is_left_alone_also_by_root(server, tmp_path):
    root = tmp_path / "assets"
    stand_in = root / "data/loose/custom/info.json"
    stand_in.parent.mkdir(parents=True)
    stand_in.write_text("{}")
    root.chmod(0o555)
    with pytest.raises(AssetError, match=r"assets is read-only; make it writable.*--root DIR"):
        install([loose(server)], root, QUICK)
    assert [path.name for path in root.iterdir()] == ["data"]
    assert stand_in.read_text() == "{}"
    assert server.asked == []
    root.chmod(0o755)


def test_what_cannot_be_reached_says_what_to_do_and_leaves_nothing_behind(server, tmp_path):
    source = loose(server)
    away = replace(source, entries=tuple(replace(e, url="http://127.0.0.1:9/x") for e in source.entries))
    with pytest.raises(AssetError, match=r"given up after 2 attempts.*https_proxy.*RLFT_ASSETS"):
        install([away], tmp_path, QUICK)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not (tmp_path / WORK).exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--timeout", "0"], "0: must be a number above 0"),
        (["--timeout", "-3"], "-3: must be a number above 0"),
        (["--timeout", "nan"], "nan: must be a number above 0"),
        (["--timeout", "soon"], "soon: must be a number above 0"),
        (["--root", __file__], "a file; give a directory"),
        (["--root", __file__, "--check"], "a file; give a directory"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_done(server, capsys, words, said):
    try:
        status = commands.main(
            [*words, *([] if "--check" in words else ["--accept-licences"])], sources=[loose(server)]
        )
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert said in capsys.readouterr().err
    assert server.asked == []
