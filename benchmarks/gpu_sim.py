"""The GPU benchmark's rows about simulation: what a seed means, what a reset touches, images, devices, speed."""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

from benchmarks.gpu_env import ACT_STEPS, Scale
from benchmarks.gpu_rows import LINES, Check, Found, claim, size
from benchmarks.gpu_simulator import TARGET_MODE, Sim, actions, base, largest, plain, targets
from benchmarks.harness import rate
from rlft.errors import ConfigError
from rlft.types import VecEnv

SEED, OTHER = 7, 8
SLOTS = (0, 7, -1)  # where the compared episode sits in the batch; -1: the last
TASKS = {"PushCube": "push_cube", "PutOnPlate": "put_on_plate"}
SMALL_CONTACTS = 2**12  # too few for a full batch
CHUNKS = 8
CLOSE = {"gpu": 1e-3, "cpu": 1e-6}  # metres and radians: CPU and GPU physics round differently


def checks(scale: Scale) -> list[Check]:
    """The rows that share one process."""
    speed = tuple(f"E={count}, A={ACT_STEPS}" for count in scale.envs)
    return [
        check("devices", ("physics and rendering",), devices, 60),
        check("partial reset", ("others' state", "others' targets"), partial_reset, 30),
        check("reset twice", ("same seed", "other seed", "without a seed"), reset_twice, 30),
        check("picture kept", ("changed numbers",), picture_kept, 20),
        check("env steps", speed, env_steps, 90),
        *(check("seed to state", (case,), partial(seed_to_state, case), 60) for case in TASKS),
    ]


def overflow_checks() -> list[Check]:
    """The row that breaks a simulation on purpose; it needs a process of its own."""
    return [check("overflow", ("too few contacts",), overflow, 90)]


def check(name: str, cases: tuple[str, ...], run: Callable[[Sim], Iterator[Found]], limit_s: float) -> Check:
    """A check whose rows say why where nothing can be simulated."""
    return Check(name, cases, partial(if_possible, run, cases), limit_s)


def if_possible(check: Callable[[Sim], Iterator[Found]], cases: tuple[str, ...], sim: Sim) -> Iterator[Found]:
    """The check's rows, or why there are none."""
    if sim.missing:
        yield from (Found(case, None, "", sim.missing) for case in cases)
    else:
        yield from check(sim)


def devices(sim: Sim) -> Iterator[Found]:
    """Whether physics and renderer are on the device that was named."""
    case = "physics and rendering"
    raw = base(sim.many)
    if raw is None:
        where = sim.many.spec.env_id
        yield Found(case, None, "", f"physics on the CPU, {where}: {sim.no_gpu_physics}")
        return
    renderer, wanted = raw.backend.render_device, torch.device(sim.scale.device)
    index = getattr(renderer, "cuda_id", None)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
    note = f"named {wanted}: physics {raw.device}, renderer {renderer} cuda {index}; CUDA_VISIBLE_DEVICES {visible}"
    apart = float(raw.device.index != wanted.index) + float(index not in (None, wanted.index))
    yield claim(case, apart, 0.0, "apart", note)


def partial_reset(sim: Sim) -> Iterator[Found]:
    """A reset of two environments between two chunks: the others end where they end without it, targets untouched."""
    env = sim.many
    E = env.spec.num_envs
    ids = [0, E // 2]
    others = [i for i in range(E) if i not in ids]

    def run(*, reset: bool) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        env.reset(range(E), range(E))
        env.step_chunk(actions(env, 0))
        before = targets(env)
        if reset:
            env.reset(ids, [OTHER, OTHER + 1])
        after = targets(env)
        return plain(env.step_chunk(actions(env, 1)).obs.state)[others], before, after

    (calm, _, _), (state, before, after) = run(reset=False), run(reset=True)
    note = f"{len(others)} others, a chunk later, against a run without the reset; {sim.backend} physics"
    yield claim("others' state", largest(state, calm), 1e-4, "", note)
    if before is None or after is None:
        yield Found("others' targets", None, "", f"controllers cannot be read: {sim.no_gpu_physics}")
    else:
        yield claim("others' targets", largest(after[others], before[others]), 0.0, "", TARGET_MODE)


def reset_twice(sim: Sim) -> Iterator[Found]:
    """The same seed is the same episode again, another seed another, and no seed another every time."""
    env = sim.many

    def start(seed: int) -> np.ndarray:
        return plain(env.reset([1], [seed]).privileged)

    first, again, other = start(SEED), start(SEED), start(OTHER)
    yield claim("same seed", largest(first, again), 1e-6, "", "environment 1, twice")
    yield claim("other seed", largest(first, other), 1e-4, "", "largest difference of the state", above=True)
    if base(env) is None:
        yield Found("without a seed", None, "", f"only ManiSkill's own reset takes none: {sim.no_gpu_physics}")
        return
    states = []
    for _ in range(2):
        base(env).reset()
        states.append(plain(base(env).get_state()))
    yield claim("without a seed", largest(*states), 1e-4, "", "ManiSkill's reset of all, twice", above=True)
    env.reset(range(env.spec.num_envs), range(env.spec.num_envs))


def picture_kept(sim: Sim) -> Iterator[Found]:
    """An image that is kept while the next ones are rendered stays what it was."""
    env = sim.many
    E, name = env.spec.num_envs, env.spec.cameras[0].name
    kept = env.reset(range(E), range(E)).images[name]
    copy = plain(kept)
    new = env.step_chunk(actions(env, 2)).obs.images[name]
    seen = largest(copy, new)
    note = f"the new image differs by up to {seen:.0f} of 255" if seen else "BLIND: the new image is the same"
    yield claim("changed numbers", float((plain(kept) != copy).sum()) if seen else 1.0, 0.0, "", note)


def env_steps(sim: Sim) -> Iterator[Found]:
    """Environment steps a second with random actions, one image a chunk, and what they take of the GPU's memory."""
    first = 0.0
    for count in sim.scale.envs:
        case = f"E={count}, A={ACT_STEPS}"
        if sim.backend == "cpu" and not sim.scale.dry and count != sim.scale.envs[0]:
            yield Found(case, None, "", f"physics on the CPU: {sim.no_gpu_physics}")
            continue
        free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
        env = sim.open(count)
        try:
            env.reset(range(count), range(count))
            env.step_chunk(actions(env, 0))
            steps = rate(partial(run_chunks, env))
            started = time.perf_counter()
            env.reset(range(count), range(count))
            reset = time.perf_counter() - started
            taken = free - torch.cuda.mem_get_info()[0] if free else 0
        finally:
            env.close()
        first = first or steps
        note = f"{steps / first:.2f} x the first; reset of all {reset:.2f} s; GPU memory {size(taken)}"
        yield Found(case, steps, "steps/s", f"{note}; {sim.backend} physics", LINES["env steps"])


def run_chunks(env: VecEnv) -> float:
    """Several chunks, ended environments reset; the environment steps executed."""
    executed = 0.0
    for i in range(CHUNKS):
        step = env.step_chunk(actions(env, i))
        executed += plain(step.n_executed).sum()
        ended = np.flatnonzero(plain(step.ended)).tolist()
        if ended:
            env.reset(ended, ended)
    return executed


def seed_to_state(case: str, sim: Sim) -> Iterator[Found]:
    """One seed in one environment on the CPU and in several places of the batch: the largest difference of state."""
    try:
        yield same_states(sim, case, TASKS[case])
    except ConfigError as error:
        if "assets" not in str(error):
            raise
        yield Found(case, None, "", str(error))


def same_states(sim: Sim, case: str, task: str) -> Found:
    """One task's row."""
    alone, first = sim.open(1, task, oracle=True), task == "push_cube"
    many = sim.many if first else sim.open(sim.many.spec.num_envs, task)
    try:
        E = many.spec.num_envs
        slots = [slot % E for slot in SLOTS]
        wanted = plain(alone.reset([0], [SEED]).privileged)
        seeds = [SEED if i in slots else 1000 + i for i in range(E)]
        found = plain(many.reset(range(E), seeds).privileged)
        apart = {i: largest(found[i], wanted[0]) for i in slots}
        words = ", ".join(f"slot {i}: {value:.1e}" for i, value in apart.items())
        other = min(largest(found[i], wanted[0]) for i in range(E) if i not in slots)
        note = f"{words}; the nearest other seed {other:.1e}; {sim.backend} physics"
        return claim(case, max(apart.values()), CLOSE[sim.backend], "", note)
    finally:
        alone.close()
        if not first:
            many.close()


@contextlib.contextmanager
def captured(fd: int = 2) -> Iterator[Callable[[], str]]:
    """What the process, and not only Python, writes to a file descriptor."""
    saved = os.dup(fd)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), fd)

        def text() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            yield text
        finally:
            os.dup2(saved, fd)
            os.close(saved)


def overflow(sim: Sim) -> Iterator[Found]:
    """PhysX with room for too few contacts says so on the error output and goes on: the library has to stop."""
    case = "too few contacts"
    if sim.missing or sim.backend == "cpu":
        yield Found(case, None, "", sim.missing or f"no GPU physics: {sim.no_gpu_physics}")
        return
    memory = {"gpu_memory_config": {"max_rigid_contact_count": SMALL_CONTACTS, "max_rigid_patch_count": SMALL_CONTACTS}}
    error = ""
    with captured() as said:
        try:
            env = sim.open(max(sim.scale.envs), env__make_kwargs={"sim_config": memory})
            env.reset(range(env.spec.num_envs), range(env.spec.num_envs))
            run_chunks(env)
        except Exception as raised:  # what the library makes of it is what is asked
            error = f"{type(raised).__name__}: {raised}"
        text = said()
    if error:
        yield claim(case, float("max_rigid" not in error), 0.0, "missed", error)
    elif "overflow" in text:
        yield claim(case, 1.0, 0.0, "missed", f"the run went on after: {text[text.index('overflow') - 80 :][:200]}")
    else:
        yield Found(case, None, "", f"not provoked with {SMALL_CONTACTS} contacts and E={max(sim.scale.envs)}")
