"""What PhysX says on file descriptor 2 stops the run, and is still seen."""

import os
import subprocess
import sys
import threading

import pytest

from rlft_envs.errors import EnvSetupError
from rlft_envs.maniskill.gpu_errors import FIELDS, PhysxWatch, check_lines

SIZES = dict.fromkeys(FIELDS.values(), 1024)
SAPIEN = "[SAPIEN] [critical]"
PLEASE = "buffer overflow detected, please increase its size to at least {} in the scene desc!"
NEEDS = "The application needs to increase {}, otherwise, the simulation will miss interactions"
CONTACTS = f"{SAPIEN} Contact {PLEASE.format(5000)}"


@pytest.mark.parametrize(
    ("line", "setting"),
    [
        (CONTACTS, "max_rigid_contact_count=8192 (now 1024)"),
        (f"{SAPIEN} Patch {PLEASE.format(1500)}", "max_rigid_patch_count=2048 (now 1024)"),
        (
            f"{SAPIEN} the application need to increase the PxgDynamicsMemoryConfig::foundLostPairsCapacity parameter "
            "to 4097, otherwise the simulation will miss interactions",
            "found_lost_pairs_capacity=8192 (now 1024)",
        ),
        (
            f"PhysX error: {NEEDS.format('PxGpuDynamicsMemoryConfig::totalAggregatePairsCapacity to 16790 ')}",
            "total_aggregate_pairs_capacity=32768 (now 1024)",
        ),
        (
            f"{SAPIEN} {NEEDS.format('PxGpuDynamicsMemoryConfig::foundLostAggregatePairsCapacity to 3000')}",
            "found_lost_aggregate_pairs_capacity=4096 (now 1024)",
        ),
        (
            f"{SAPIEN} PxgDynamicsMemoryConfig::collisionStackSize {PLEASE.format(-1280352880)}",
            "collision_stack_size=2048 (now 1024)",
        ),
        (
            f"{SAPIEN} PxgPinnedHostLinearMemoryAllocator: overflowing initial allocation size, increase capacity to "
            "at least 1025.",
            "temp_buffer_capacity=2048 (now 1024)",
        ),
        (f"{SAPIEN} heap overflow", "heap_capacity=2048 (now 1024)"),
        (f"{SAPIEN} Force buffer overflow detected", "gpu_memory_config, one of"),
    ],
)
def test_an_overflow_names_the_setting_and_a_larger_value(line, setting):
    with pytest.raises(EnvSetupError) as refused:
        check_lines(f"something\n[2026-03-06 18:26:36.049] {line}\nelse\n", SIZES)
    assert line in str(refused.value)
    assert "env.make_kwargs.sim_config.gpu_memory_config" in str(refused.value)
    assert setting in str(refused.value)


def test_an_overflow_before_the_sizes_are_known():
    with pytest.raises(EnvSetupError, match=r"gpu_memory_config\.max_rigid_contact_count to twice its value"):
        check_lines(CONTACTS, {})


@pytest.mark.parametrize(
    "line",
    [
        "[SAPIEN] [critical] GPU mWritebackBlockFunction fail to launch kernel!!",
        "[SAPIEN] [critical] SynchronizeStreams cuEventRecord failed with error 700",
        "[SAPIEN] [critical] PhysX Internal CUDA error. Simulation can not continue! Error code 700!",
    ],
)
def test_a_broken_gpu_stops_the_run(line):
    with pytest.raises(EnvSetupError, match="start a new process"):
        check_lines(line, SIZES)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "RuntimeWarning: overflow encountered in multiply\n",
        "[SAPIEN] [critical] Cooking::cookConvexMesh: user-provided convex mesh descriptor is invalid!\n",
        "[SAPIEN] [warning] A link has no inertia\n",
    ],
)
def test_other_lines_do_not(text):
    check_lines(text, SIZES)


def test_lines_are_caught_and_forwarded(capfd):
    watch = PhysxWatch()
    watch.sizes = SIZES
    os.write(2, b"before\n")
    with pytest.raises(EnvSetupError, match="max_rigid_contact_count"), watch:
        os.write(2, f"harmless\n{CONTACTS}\n".encode())
    os.write(2, b"after\n")
    with watch:
        os.write(2, b"harmless\n")  # the old complaint is not read again
    assert capfd.readouterr().err == f"before\nharmless\n{CONTACTS}\nafter\nharmless\n"


def test_the_complaint_comes_before_the_error_that_it_caused():
    def step():
        os.write(2, f"{CONTACTS}\n".encode())
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(EnvSetupError) as refused, PhysxWatch():
        step()
    assert isinstance(refused.value.__context__, RuntimeError)


WORDS = ("Pxg overflow", "nested")


def test_watches_in_several_threads_and_nested_leave_the_descriptor_as_it_was(capfd):
    descriptors, caught = len(os.listdir("/proc/self/fd")), []

    def work(i):
        for j in range(50):
            try:
                with PhysxWatch():
                    os.write(2, f"{i} {j} {WORDS[0]}\n".encode())
                    with PhysxWatch():
                        os.write(2, f"{i} {j} {WORDS[1]}\n".encode())
            except EnvSetupError:
                caught.append((i, j))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = capfd.readouterr().err.splitlines()
    assert sorted(lines) == sorted(f"{i} {j} {word}" for i in range(3) for j in range(50) for word in WORDS)
    assert caught
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_crash_leaves_the_last_words_on_disk(tmp_path):
    code = (
        "import os, signal\nfrom rlft_envs.maniskill.gpu_errors import PhysxWatch\n"
        "with PhysxWatch():\n    os.write(2, b'last words')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False, timeout=60)
    assert [path.read_text() for path in tmp_path.glob("rlft_physx_*")] == ["last words"]
