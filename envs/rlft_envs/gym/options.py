"""What a task file says about a Gymnasium environment under ``env.options``. Imports nothing heavy."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from rlft.types import EnvSettings
from rlft_envs.checks import parsed
from rlft_envs.errors import EnvSetupError

RENDER = "render"  # the key of what env.render() returns
NATIVE = "native"  # the control mode of an environment that has one


@dataclass(frozen=True)
class Options:
    """Where an environment keeps what rlft asks for.

    A key is a dotted path into the observation: ``pixels.top`` is ``observation["pixels"]["top"]``. An observation that
    is no mapping has the key ``observation``; what stands in ``info`` begins with ``info.``.
    """

    # camera name -> key of its image, or `render` for `env.render()`; one not named has the simulator's usual key
    images: Mapping[str, str] = field(default_factory=dict)
    success: str = "is_success"  # key into `info`; or `terminated`; or `reward >= x`
    human_view: str | None = None  # key of the image that videos are made of, or `render`; None: the first camera's
    privileged: tuple[str, ...] = ()  # keys of the state that an asymmetric critic may see
    control_hz: float | None = None  # steps per second; None: what the environment says
    action_low: tuple[float, ...] = ()  # lower bounds of the actions; empty: those of the action space
    action_high: tuple[float, ...] = ()  # upper bounds
    # whether the environment may be stepped on after it has terminated, which Gymnasium leaves open
    runs_past_end: bool = False

    def __post_init__(self) -> None:
        if self.control_hz is not None and not self.control_hz > 0:
            raise EnvSetupError(f"env.options.control_hz = {self.control_hz}: must be above 0")
        self.success_above()

    @classmethod
    def of(cls, settings: EnvSettings) -> "Options":
        """The options of these settings; EnvSetupError where one does not exist, or cannot have its value."""
        return parsed(cls, settings.options, "env.options")

    def success_above(self) -> float | None:
        """The x of ``reward >= x``; None where success is told otherwise. EnvSetupError: x is no number."""
        match = re.fullmatch(r"reward\s*>=\s*(.+)", self.success)
        try:
            return float(match[1]) if match else None
        except ValueError:
            raise EnvSetupError(f"env.options.success = {self.success!r}: must end with a number") from None


def check_settings(settings: EnvSettings, options: Options, *, adapted: bool) -> None:
    """Refuse (EnvSetupError) settings that a Gymnasium environment cannot follow.

    Where the task is ``adapted``, its adapter may know renderer presets.
    """
    unused = sorted(set(options.images) - {camera.name for camera in settings.cameras})
    placed = [c.name for c in settings.cameras if (c.fov, c.eye, c.target) != (None, None, None)]
    ends = settings.episode_ends_on_success or options.runs_past_end
    wrong = {
        f"env.control_mode = {settings.control_mode!r}: must be {NATIVE}; where an environment has several, choose by "
        "env.make_kwargs": settings.control_mode != NATIVE,
        f"env.robot = {settings.robot!r}: must be null; choose by env.make_kwargs": settings.robot is not None,
        f"env.shader = {settings.shader!r}: must be minimal, the default": settings.shader != "minimal" and not adapted,
        f"sim.render_backend = {settings.render_backend!r}: must be null; MuJoCo reads MUJOCO_GL and "
        "MUJOCO_EGL_DEVICE_ID": settings.render_backend is not None,
        f"env.cameras {placed}: take a name and a size; place them by env.make_kwargs": bool(placed),
        "env.state_terms = []: give the key of at least one array": not settings.state_terms,
        f"env.options.images names {unused}, which env.cameras does not": bool(unused),
        "env.episode_ends_on_success = false: an environment that has terminated must not be stepped on, unless "
        "env.options.runs_past_end says that it may": not ends,
        "critic.inputs asks for privileged state: list its keys in env.options.privileged, or use "
        "critic.inputs=features": settings.privileged and not options.privileged,
    }
    for text, refused in wrong.items():
        if refused:
            raise EnvSetupError(text)
