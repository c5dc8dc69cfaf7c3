"""Why a plan could not be made."""

from __future__ import annotations


class PlanError(Exception):
    """A planner gave up on one episode.

    Attributes:
        kind: ``ik`` (a waypoint has no joint solution), ``no_plan`` (no timed path, or the task cannot be done in
            this control mode), ``not_grasped`` (the fingers never held the object) or ``dropped`` (they lost it).
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
