"""gym-aloha's two-armed tasks: what upstream lacks, and who hands the cube over."""

from rlft_envs.task import Task

CHECK = "rlft_envs.gym.simulator:check_mujoco"
ADAPT = "rlft_tasks.aloha.scene:OnDemand"


def _ids(name: str) -> tuple[str, str]:
    """As gymnasium's id, and as lerobot's type/task."""
    return f"gym_aloha/{name}", f"aloha/{name}"


TASKS = (
    Task(
        _ids("AlohaTransferCube-v0"),
        "pick up the cube with the right arm and hand it to the left arm",
        expert="rlft_tasks.aloha.expert:TransferExpert",
        check=CHECK,
        module="gym_aloha",
        adapt=ADAPT,
    ),
    Task(_ids("AlohaInsertion-v0"), "insert the peg into the socket", check=CHECK, module="gym_aloha", adapt=ADAPT),
)
