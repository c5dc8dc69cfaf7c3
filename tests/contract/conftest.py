import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1] / "plugins"))

from assets_at import assets_root
from renders_mujoco import needs_mujoco
from vec_env_factories import FAMILY, MUJOCO, SIMULATORS, TOYS


class Environments:
    """Builds each environment once per session; a first picture costs seconds."""

    def __init__(self):
        self._built = {}

    def get(self, factory):
        if factory in FAMILY:
            assets_root()  # or the test is skipped
        if factory in MUJOCO:
            needs_mujoco()
        if factory.name not in self._built:
            self._built[factory.name] = factory.build()
        return self._built[factory.name]

    def close(self):
        for env in self._built.values():
            env.close()


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Small tensors on few cores: a pool of threads only costs."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def environments():
    store = Environments()
    yield store
    store.close()


@pytest.fixture(
    params=[*TOYS, *(pytest.param(one, marks=pytest.mark.simulator) for one in (*SIMULATORS, *MUJOCO, *FAMILY))],
    ids=lambda factory: factory.name,
)
def factory(request):
    return request.param


@pytest.fixture
def env(environments, factory):
    return environments.get(factory)
