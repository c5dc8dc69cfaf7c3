"""GPU PhysX says that a buffer is too small on file descriptor 2, drops contacts and goes on: here the run stops.

The lines are PhysX's own, printed by SAPIEN. No exception, return value or callback carries them.
"""

import os
import re
import sys
import tempfile
import threading
from collections.abc import Mapping
from typing import Any

from rlft_envs.errors import EnvSetupError

SETTING = "env.make_kwargs.sim_config.gpu_memory_config"
FIELDS: Mapping[str, str] = {
    "foundLostAggregatePairsCapacity": "found_lost_aggregate_pairs_capacity",
    "totalAggregatePairsCapacity": "total_aggregate_pairs_capacity",
    "foundLostPairsCapacity": "found_lost_pairs_capacity",
    "collision ?stack": "collision_stack_size",
    "contact buffer": "max_rigid_contact_count",
    "patch buffer": "max_rigid_patch_count",
    "LinearMemoryAllocator": "temp_buffer_capacity",
    "heap": "heap_capacity",
}
"""Words in a line of PhysX -> the field of ManiSkill's GPUMemoryConfig that it is about; the first match counts."""
FROM_PHYSX = re.compile(r"\[SAPIEN\]|PhysX|Pxg", re.IGNORECASE)
TOO_SMALL = re.compile(r"overflow|need(s)? to increase|will miss interactions", re.IGNORECASE)
BROKEN = re.compile(r"fail(ed)? to launch|cuda error|failed with error|simulation can ?not continue", re.IGNORECASE)
NEEDED = re.compile(r"(?:at least|parameter to|Capacity to) (\d+)")


def check_lines(text: str, sizes: Mapping[str, int]) -> None:
    """Raise EnvSetupError where GPU PhysX says, on file descriptor 2, that a buffer was too small, or that CUDA failed.

    The sizes are the fields of ManiSkill's GPUMemoryConfig as they are; empty where they are not known yet.
    """
    lines = [line.strip() for line in text.splitlines() if FROM_PHYSX.search(line)]
    for line in lines:
        if TOO_SMALL.search(line):
            raise EnvSetupError(f"GPU PhysX ran out of room and dropped contacts: {line}\n{_remedy(line, sizes)}")
    for line in lines:
        if BROKEN.search(line):
            raise EnvSetupError(f"GPU PhysX failed: {line}\nIts state is lost; start a new process")


def _remedy(line: str, sizes: Mapping[str, int]) -> str:
    field = next((field for words, field in FIELDS.items() if re.search(words, line, re.IGNORECASE)), None)
    if field is None:
        return f"enlarge its buffers: {SETTING}, one of {', '.join(FIELDS.values())}"
    if field not in sizes:
        return f"set {SETTING}.{field} to twice its value"
    needed, larger = NEEDED.search(line), 2 * sizes[field]
    while needed is not None and larger < int(needed[1]):
        larger *= 2
    return f"set {SETTING}.{field}={larger} (now {sizes[field]})"


class PhysxWatch:
    """Around calls of the simulator: what they write to file descriptor 2 is read, then forwarded, then checked.

    Not run on a GPU; the messages are those that users report. The descriptor belongs to the process, so one file
    serves all watches, nested or in several threads. The file is on disk so that a crash leaves its last words there
    (``rlft_physx_*`` in the temporary directory).
    """

    _lock = threading.Lock()
    _inside = 0
    _file: Any = None
    _stderr = -1  # a duplicate of the real one
    _read = 0  # bytes of the file

    def __init__(self) -> None:
        self.sizes: Mapping[str, int] = {}  # see check_lines

    def __enter__(self) -> "PhysxWatch":
        shared = PhysxWatch
        with shared._lock:
            if shared._inside == 0:
                sys.stderr.flush()
                shared._file, shared._read = tempfile.NamedTemporaryFile(prefix="rlft_physx_"), 0
                shared._stderr = os.dup(2)
                os.dup2(shared._file.fileno(), 2)
            shared._inside += 1
        return self

    def __exit__(self, *error: object) -> None:
        shared = PhysxWatch
        with shared._lock:
            sys.stderr.flush()
            shared._inside -= 1
            if shared._inside == 0:
                os.dup2(shared._stderr, 2)
            end = os.fstat(shared._file.fileno()).st_size
            text = os.pread(shared._file.fileno(), end - shared._read, shared._read)
            shared._read = end
            with open(shared._stderr, "wb", closefd=False) as stderr:
                stderr.write(text)
            if shared._inside == 0:
                os.close(shared._stderr)
                shared._file.close()
        check_lines(text.decode(errors="replace"), self.sizes)
