"""Shared by all tests: one thread per process, so that tests that start processes do not fight over the cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gc
import signal

if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("MUJOCO_GL", "egl")  # read once, when mujoco is first imported, which ManiSkill does too

from assets_at import find_assets

if (_assets := find_assets()) is not None:
    os.environ.setdefault("RLFT_ASSETS", str(_assets))
    os.environ.setdefault("MS_ASSET_DIR", str(_assets / "maniskill"))  # read once, when ManiSkill is first imported

# What a shell starts in the background ignores Ctrl-C, and so would every process that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish():
    """What was imported stays: ManiSkill collects garbage at every build and close, and need not look through it."""
    gc.collect()
    gc.freeze()
