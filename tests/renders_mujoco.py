"""Whether MuJoCo can run the tests that need it."""

import pytest

from rlft.types import EnvSettings
from rlft_envs.errors import EnvSetupError
from rlft_envs.gym.simulator import check_mujoco


def needs_mujoco() -> None:
    """Skip the test where gym-aloha is not installed or MuJoCo cannot render, and say what to install."""
    pytest.importorskip("gym_aloha", reason="needs gym-aloha: pip install 'rlft[gym]'")
    try:
        check_mujoco(EnvSettings("gymnasium", "gym_aloha/AlohaTransferCube-v0", 1, 1, "native"))
    except EnvSetupError as error:
        pytest.skip(str(error))
