"""The PutOnPlateInScene25 family: a WidowX arm puts one of 25 objects on one of 17 plates, on one of 21 tables."""

from rlft_envs.task import Task

TASKS = (
    Task(
        ids=("PutOnPlateInScene25*",),
        expert="rlft_tasks.planners.put_on:put_on_expert",
        configurations="rlft_tasks.put_on_plate.configurations:configuration_space",
        check="rlft_tasks.put_on_plate.configurations:configuration_space",  # unknown ids and splits, missing assets
        module="rlft_tasks.put_on_plate.scene",
        adapt="rlft_tasks.put_on_plate.scene:adapt",
        download="rlft_envs.assets:own_download",
    ),
)
