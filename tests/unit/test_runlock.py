import errno
import fcntl
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rlft.errors import RlftError
from rlft.run.stages import run_lock

HOLD = """
import sys, time
from pathlib import Path
from rlft.run.stages import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_ends_however_it_ends(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        holder = f"in use by process {process.pid} on {socket.gethostname()};"
        with pytest.raises(RlftError, match=holder) as refusal, run_lock(tmp_path):
            pass
        assert refusal.value.exit_code == 2
        process.kill()
    with run_lock(tmp_path):
        pass


def test_it_can_be_taken_again_in_turn(tmp_path):
    for _ in range(2):
        with run_lock(tmp_path / "new" / "run"), pytest.raises(RlftError, match="in use"):
            run_lock(tmp_path / "new" / "run").__enter__()


@pytest.mark.parametrize("place", ["{tmp}/file/run", "/proc/rlft"])  # root may write anywhere but in the kernel's own
def test_a_place_that_cannot_be_written_is_told(tmp_path, place):
    (tmp_path / "file").write_text("")
    run = Path(place.format(tmp=tmp_path))
    with pytest.raises(RlftError, match=f"output.dir = {run}: cannot be written"), run_lock(run):
        pass


def test_an_almost_full_disk_is_told(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=2**20))
    with pytest.raises(RlftError, match="only 1 MiB free, 64 MiB are needed"), run_lock(tmp_path):
        pass


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RlftError, match=r"or locked \(Function not implemented"), run_lock(tmp_path):
        pass
