"""ManiSkill's tabletop tasks: what upstream does not say of them, and who demonstrates three of them."""

from rlft_envs.task import Task

PUSH, PICK, STACK = (f"rlft_tasks.planners.tabletop:{name}_expert" for name in ("push", "pick", "stack"))
HOLD, CHECK = "pick up the cube and hold it at the goal", "rlft_envs.maniskill.setup:task_class"

TASKS = (
    Task(("PushCube-v1",), "push the cube to the target", expert=PUSH, movable=("obj", "goal_region")),
    Task(("PullCube-v1",), "pull the cube to the target", expert=PUSH, movable=("obj", "goal_region")),
    Task(("PickCubeSO100-v1", "PickCubeWidowXAI-v1"), HOLD),
    Task(("PickCube-v1",), HOLD, expert=PICK, movable=("cube", "goal_site"), goal_follows_object=False),
    Task(("StackCube-v1",), "stack the red cube on the green cube", expert=STACK),
    Task(("PullCubeTool-v1",), "pull the cube closer with the tool"),
    Task(("PokeCube-v1",), "poke the cube with the peg"),
    Task(("StackPyramid-v1",), "stack the cubes into a pyramid"),
    Task(("PlaceSphere-v1",), "place the sphere into the bin"),
    Task(("RollBall-v1",), "roll the ball to the goal"),
    Task(("LiftPegUpright-v1",), "lift the peg upright"),
    Task(("PegInsertionSide-v1",), "insert the peg into the hole"),
    Task(("PlugCharger-v1",), "plug the charger into the receptacle"),
    Task(("PushT-v1",), "push the T to its outline"),
    Task(("PickSingleYCB-v1",), "pick up the object and hold it at the goal", check=CHECK),
)
