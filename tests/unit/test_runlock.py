import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlft.errors import RlftError
from rlft.run.runlock import RunLock, check_writable

HOLD = """
import sys, time
from pathlib import Path
from rlft.run.runlock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_ends_however_it_ends(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RlftError, match=f"in use by process {process.pid}"), RunLock(tmp_path):
            pass
        process.kill()
    with RunLock(tmp_path):
        pass


def test_it_can_be_taken_again_in_turn(tmp_path):
    for _ in range(2):
        with (
            RunLock(tmp_path / "new" / "run"),
            pytest.raises(RlftError, match="in use"),
            RunLock(tmp_path / "new" / "run"),
        ):
            pass


def test_a_directory_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RlftError, match=r"output.dir = .*file/run: cannot be written"):
        check_writable(tmp_path / "file" / "run")


def test_a_read_only_place_is_told():
    # Root may write anywhere but where the kernel itself says no.
    with pytest.raises(RlftError, match="cannot be written"):
        check_writable(Path("/proc/rlft"))


def test_an_almost_full_disk_is_told(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=2**20))
    with pytest.raises(RlftError, match="only 1 MiB free, 64 MiB are needed"), RunLock(tmp_path):
        pass
