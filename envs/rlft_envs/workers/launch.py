"""How a worker's interpreter is started, and what it can import."""

from __future__ import annotations

import atexit
import os
import site
import sys
import sysconfig
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("rlft", "rlft_envs", "rlft_tasks")
"""What a worker imports: numpy is all that they need in turn, until a simulator is built."""


def worker_environment(python: str = sys.executable) -> dict[str, str]:
    """Environment variables of a worker.

    It imports what this process can import, in the same order: a package of the user's own is found there as it is
    here, wherever the worker is started. Another interpreter keeps its own libraries: it gets this process's search
    path without this interpreter's libraries, and our packages by themselves.

    Args:
        python: the worker's interpreter.
    """
    path = [os.path.abspath(entry) for entry in sys.path]  # "" is the working directory
    if python != sys.executable:
        path = [_our_packages(), *(entry for entry in path if not _is_interpreters_own(entry))]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {
        **os.environ,
        **threads,
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONSAFEPATH": "1",  # -m would put the working directory first, which need not be on our own path
        "MS_SKIP_ASSET_DOWNLOAD_PROMPT": "1",  # nobody could answer
    }


def _is_interpreters_own(entry: str) -> bool:
    """Whether an entry of the search path holds this interpreter's library, or what was installed into it."""
    own = [sysconfig.get_path("stdlib"), *site.getsitepackages(), site.getusersitepackages()]
    return entry.endswith(".zip") or any(Path(entry).is_relative_to(folder) for folder in own)


@cache
def _our_packages() -> str:
    """A folder of links to our packages alone: where they are installed, another version's libraries lie beside."""
    folder = tempfile.TemporaryDirectory(prefix="rlft-packages-")
    atexit.register(folder.cleanup)
    for name in PACKAGES:
        spec = find_spec(name)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        (Path(folder.name) / name).symlink_to(Path(spec.submodule_search_locations[0]).resolve())
    return folder.name
