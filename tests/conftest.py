"""Shared by all tests: one thread per process, so that tests that start processes do not fight over the cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
