"""What the README tells a user to type works: targets exist, commands load, links lead somewhere."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"```\n(.*?)```", README, flags=re.DOTALL))
SCRIPTS = [line for line in BLOCKS.splitlines() if line.startswith(".venv/bin/python scripts/")]


@pytest.mark.parametrize("line", SCRIPTS)
def test_every_script_command_has_settings_that_load(line):
    _, script, *words = shlex.split(line, comments=True)
    only_say = "--list" if script.endswith("download_assets.py") else "--cfg"
    done = subprocess.run(
        [sys.executable, str(ROOT / script), only_say, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_run_file_can_be_started():
    started = [line.split()[0] for line in BLOCKS.splitlines() if line.startswith("scripts/")]
    assert started
    assert all(os.access(ROOT / path, os.X_OK) for path in started)


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^make (\w+)", BLOCKS, flags=re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_every_link_leads_to_a_file():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_images_are_small():
    assert {path.name for path in (ROOT / "docs").rglob("*.*") if path.stat().st_size > 300_000} == set()


def test_it_fits_one_screen():
    assert len(README.splitlines()) <= 60
