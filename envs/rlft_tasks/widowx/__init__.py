"""SimplerEnv's four WidowX tasks of BridgeData V2, as ManiSkill ships them."""

from rlft_envs.task import Task

TASKS = (
    Task(
        ids=(
            "PutCarrotOnPlateInScene-v1",
            "PutEggplantInBasketScene-v1",
            "PutSpoonOnTableClothInScene-v1",
            "StackGreenCubeOnYellowCubeBakedTexInScene-v1",
        ),
        expert="rlft_tasks.planners.put_on:put_on_expert",
        check="rlft_envs.maniskill.setup:task_class",
        adapt="rlft_tasks.widowx.scene:adapt",
        download="rlft_envs.assets:own_download",
    ),
)
