import contextlib
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load_script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def driver():
    return load_script("install_driver")


LISTED = "bookworm http://mirror.example.org/debian/\nbookworm-updates http://other.example.org/debian/\n"


def test_the_archive_is_that_of_the_release_itself(driver):
    assert driver.archive(LISTED, "bookworm") == "http://mirror.example.org/debian/"
    assert driver.archive(LISTED, "trixie") is driver.archive("", "bookworm") is None


@pytest.mark.parametrize(
    ("candidate", "major"),
    [("22.3.6-1+deb12u2", 22), ("25.0.7-2~bpo12+1", 25), ("1:24.2.8-1ubuntu1", 24), ("(none)", None)],
)
def test_mesas_version_is_read(driver, candidate, major):
    assert driver.mesa_major(f"mesa-vulkan-drivers:\n  Installed: 21.0.1-1\n  Candidate: {candidate}\n") == major


class Apt:
    """Stands for the package manager: records what it is asked."""

    def __init__(self, driver, monkeypatch, tmp_path, candidate: str, release: str, fail_at: str = ""):
        self.asked, self.sources_seen, self.fail_at = [], [], fail_at
        self.file = tmp_path / "rlft-backports.list"
        monkeypatch.setattr(driver, "SOURCES", self.file)
        monkeypatch.setattr(driver, "apt", self.apt)
        monkeypatch.setattr(driver, "release", lambda: dict(line.split("=") for line in release.split()))
        answers = {"apt-cache": f"  Candidate: {candidate}\n", "apt-get": LISTED}
        monkeypatch.setattr(driver, "asked", lambda command, *_words: answers[command])
        monkeypatch.setattr(driver.subprocess, "run", lambda *_args, **_kwargs: None)

    def apt(self, *arguments):
        self.asked.append(arguments)
        self.sources_seen.append(self.file.read_text() if self.file.exists() else "")
        if arguments[0] == self.fail_at:
            raise RuntimeError("apt-get install ended with 100")


def test_a_new_enough_mesa_is_installed_from_the_release(driver, monkeypatch, tmp_path):
    apt = Apt(driver, monkeypatch, tmp_path, "25.0.1-1", "ID=debian VERSION_CODENAME=trixie")
    driver.install()
    assert apt.asked[-1] == ("install", "-y", "--no-install-recommends", *driver.PACKAGES)
    assert apt.sources_seen == ["", ""]


@pytest.mark.parametrize("fails_at", ["", "install"])
def test_an_old_mesa_is_replaced_from_backports_and_the_source_is_removed(driver, monkeypatch, tmp_path, fails_at):
    apt = Apt(driver, monkeypatch, tmp_path, "22.3.6-1", "ID=debian VERSION_CODENAME=bookworm", fail_at=fails_at)
    with pytest.raises(RuntimeError, match="ended with 100") if fails_at else contextlib.nullcontext():
        driver.install()
    assert apt.asked[-1][:5] == ("install", "-y", "--no-install-recommends", "-t", "bookworm-backports")
    line = f"deb [signed-by={driver.KEYS}] http://mirror.example.org/debian/ bookworm-backports main\n"
    assert apt.sources_seen[-1] == line
    assert not apt.file.exists()


def test_where_no_new_mesa_can_be_had_it_says_so(driver, monkeypatch, tmp_path):
    Apt(driver, monkeypatch, tmp_path, "22.0.1-1", "ID=ubuntu VERSION_CODENAME=jammy")
    with pytest.raises(RuntimeError, match="has Mesa 22, SAPIEN needs 24"):
        driver.install()


def test_without_root_it_changes_nothing_and_says_what_to_install(driver, monkeypatch, capsys):
    monkeypatch.setattr(driver.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(driver, "install", lambda: pytest.fail("installed"))
    assert driver.main() == 1
    text = capsys.readouterr().err
    assert "apt-get install libvulkan1 mesa-vulkan-drivers" in text
    assert "dnf install" in text


TOOLS = ("bash", "env", "dirname", "cat", "sha256sum", "cut", "ls", "id", "rm", "true", "printf", "mkdir", "cp")


@pytest.fixture
def bare(tmp_path):
    """A copy of the project and a machine whose python3.12 is a version manager's shim that only says no."""
    (tmp_path / "project" / "scripts").mkdir(parents=True)
    for name in ("scripts/setup.sh", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / "project" / name)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    put(tmp_path / "bin" / "python3.12", "echo 'python3.12: command not found' >&2; exit 127")
    return tmp_path


def put(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def set_up(bare: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": str(bare / "bin"), "HOME": str(bare / "home"), **environment}
    script = str(bare / "project" / "scripts" / "setup.sh")
    return subprocess.run([str(bare / "bin" / "bash"), script], env=variables, capture_output=True, text=True)


def test_an_interpreter_that_only_pretends_is_passed_over(bare):
    # It passes the trial and then refuses to make an environment, which shows that it was chosen.
    real = bare / "home" / ".pyenv" / "versions" / "3.12.9" / "bin" / "python3.12"
    put(real, '[ "$1" = -c ] && exit 0; echo "asked: $*" >&2; exit 1')
    done = set_up(bare)
    assert done.returncode == 2
    assert f"making .venv with {real}" in done.stderr
    assert "asked: -m venv .venv" in done.stderr
    assert "install its venv package" in done.stderr


def test_a_named_interpreter_that_does_not_run_is_not_replaced_by_another(bare):
    put(bare / "home" / ".pyenv" / "versions" / "3.12.9" / "bin" / "python3.12", "exit 0")
    done = set_up(bare, PYTHON=str(bare / "bin" / "python3.12"))
    assert done.returncode == 2
    assert "is not a Python 3.12 that runs" in done.stderr
    assert "uv python install 3.12" in done.stderr


OLD_PYTHON = """\
case "$*" in
    "-m pip --version") exit 0 ;;
    "-m pip install"*) mkdir -p "${@: -2:1}/bin"; cp "$HOME/uv" "${@: -2:1}/bin/uv" ;;
    *) exit 1 ;;  # it is no Python 3.12
esac"""


def test_where_there_is_no_python_uv_fetches_one_and_says_so(bare):
    real = bare / "home" / "fetched" / "python3.12"
    put(bare / "bin" / "python3", OLD_PYTHON)
    put(bare / "home" / "uv", f'[ "$2" = install ] && {{ echo fetching >&2; exit 0; }}; echo "{real}"')
    put(real, '[ "$1" = -c ] && exit 0; echo "asked: $*" >&2; exit 1')
    done = set_up(bare)
    assert "no Python 3.12 here: fetching one" in done.stderr
    assert f"making .venv with {real}" in done.stderr
    assert "asked: -m venv .venv" in done.stderr


@pytest.mark.parametrize("uv", ["exit 1", None], ids=["no network", "no pip"])
def test_where_uv_cannot_fetch_one_the_advice_is_given(bare, uv):
    if uv is not None:
        put(bare / "bin" / "python3", OLD_PYTHON)
        put(bare / "home" / "uv", uv)
    done = set_up(bare)
    assert done.returncode == 2
    assert "uv could not fetch one" in done.stderr
    assert "pyenv install 3.12" in done.stderr


def test_nothing_is_done_again_when_all_is_in_place(bare):
    project = bare / "project"
    put(project / ".venv" / "bin" / "python", 'echo "$*" >>"$HOME/log"; exit 0')
    (bare / "home").mkdir()
    put(bare / "bin" / "grep", 'exec /usr/bin/env -i /bin/grep "$@"')
    put(bare / "bin" / "awk", "while read -r _; do :; done")
    log = bare / "home" / "log"
    assert set_up(bare).returncode == 0
    first = log.read_text()
    assert "-m pip install" in first
    assert "scripts/check_render.py" in first
    log.write_text("")
    assert set_up(bare).returncode == 0
    assert "pip" not in log.read_text()
    assert "check_render" not in log.read_text()
    with (project / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    assert set_up(bare).returncode == 0
    assert "pip install" in log.read_text()
    log.write_text("")
    assert set_up(bare, VK_ICD_FILENAMES="/another").returncode == 0
    assert "pip install" not in log.read_text()
    assert "check_render" in log.read_text()


def test_without_a_driver_it_stops_unless_told_otherwise(bare):
    put(bare / "project" / ".venv" / "bin" / "python", '[[ "$*" == scripts/* ]] && exit 1; exit 0')
    put(bare / "bin" / "grep", "echo 1")
    put(bare / "bin" / "awk", "while read -r _; do :; done")
    done = set_up(bare)
    assert done.returncode == 1
    assert "RLFT_WITHOUT_RENDERING=1" in done.stderr
    assert set_up(bare, RLFT_WITHOUT_RENDERING="1").returncode == 0


def test_the_scripts_are_executable():
    started = [path for path in (ROOT / "scripts").glob("*.sh") if path.read_text().startswith("#!")]
    assert len(started) >= 4
    for script in (*started, ROOT / ".ci" / "run"):
        assert os.access(script, os.X_OK), script
