"""What the simulators raise; the messages say what is wrong and what to do."""

from collections.abc import Collection, Iterable

from rlft.errors import RlftError, did_you_mean


class EnvSetupError(RlftError, ValueError):
    """An environment cannot be built from these settings, or not on this machine."""

    exit_code = 2


class WorkerError(RlftError):
    """A worker process failed more often than ``max_restarts`` allows, or could not be started."""


class PlanError(Exception):
    """A planner gave up on one episode."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        # `ik` (a waypoint has no joint solution), `no_plan` (no timed path, or the task cannot be done in this control
        # mode), `not_grasped` (the fingers never held the object) or `dropped` (they lost it)
        self.kind = kind


def unknown(what: str, given: str, allowed: Iterable[str]) -> EnvSetupError:
    """The error for a setting, for instance ``env.id``, whose name does not exist, with the nearest ones that do."""
    names = sorted(allowed)
    hint = did_you_mean(given, names, count=3, cutoff=0.5) or f"; allowed: {', '.join(names)}"
    return EnvSetupError(f"{what} = {given!r} is not known{hint}")


def check_known(what: str, given: Iterable[str], allowed: Collection[str]) -> None:
    """Raise the :func:`unknown` error of the first name that is not allowed."""
    for name in given:
        if name not in allowed:
            raise unknown(what, name, allowed)
