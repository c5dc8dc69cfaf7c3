"""What a simulator has to provide, the seam for simulators of one's own; and who builds what the settings describe."""

from abc import ABC, abstractmethod

from rlft import plugins
from rlft.errors import ConfigError
from rlft.types import EnvSettings, VecEnv
from rlft_envs.errors import EnvSetupError, check_known
from rlft_envs.rewards import REWARD_MODES
from rlft_envs.single import SingleEnv
from rlft_envs.task import task_of


class Simulator(ABC):
    """A simulator, found by ``env.simulator``. Its module loads nothing heavy; what these methods need, they import."""

    packages: tuple[str, ...] = ("numpy",)  # whose versions a dataset records, where they are installed

    @abstractmethod
    def single(self, settings: EnvSettings) -> SingleEnv:
        """Build one environment with CPU physics; EnvSetupError, which says what to change, where that fails."""

    def batched(self, settings: EnvSettings) -> VecEnv:
        """Build all environments as one object with GPU physics; EnvSetupError where the simulator has none."""
        raise EnvSetupError(f"env.simulator = {settings.simulator!r} has no GPU physics; use sim.backend=cpu")

    def check(self, settings: EnvSettings) -> None:
        """Refuse what is known to be wrong, in a second or so and before anything is built.

        EnvSetupError: unknown id, missing assets, no renderer; or what the task's own check says.
        """
        check = task_of(settings).hook("check")
        if check is not None:
            check(settings)

    def process_bytes(self, *, renders: bool) -> tuple[int, int] | None:
        """Host memory of a process with its first environment (CPU physics), and of each further one in it, bytes.

        As measured, with a camera where it ``renders``; None: it never was, and a plan says so.
        """
        return None

    def resolved(self, settings: EnvSettings) -> EnvSettings:
        """Settings in which what only this machine can tell is decided, the same for every worker."""
        return settings


def simulator_of(settings: EnvSettings) -> Simulator:
    """The simulator that the settings name; EnvSetupError where there is none of that name."""
    try:
        found = plugins.load("simulators", settings.simulator, "env.simulator")
    except ConfigError as error:
        raise EnvSetupError(error.problems[0]) from error
    return found() if isinstance(found, type) else found


def build_single_env(settings: EnvSettings) -> SingleEnv:
    """Build one environment of the simulator that the settings name; errors as of :meth:`Simulator.single`."""
    return simulator_of(settings).single(settings)


def make_vec_env(settings: EnvSettings) -> VecEnv:
    """Build the environments.

    CPU physics runs in ``settings.num_workers`` worker processes, or in this process where that is 0; GPU physics is
    one batched object in this process. EnvSetupError: the settings name something that does not exist, or that cannot
    run on this machine; WorkerError: a worker process could not be started.
    """
    simulator = simulator_of(settings)
    check_known("env.reward.mode", [settings.reward.mode], REWARD_MODES)
    if settings.num_envs < 1:
        raise EnvSetupError(f"env.num_envs = {settings.num_envs}; at least 1 is needed")
    if len({camera.name for camera in settings.cameras}) != len(settings.cameras):
        raise EnvSetupError(f"env.cameras names repeat: {[camera.name for camera in settings.cameras]}")
    settings = simulator.resolved(settings)
    if settings.sim_backend == "gpu":
        return simulator.batched(settings)
    from rlft_envs.workers.pool import WorkerPool

    return WorkerPool(settings)
