"""Why a plan could not be made."""

from __future__ import annotations


class PlanError(Exception):
    """A planner gave up on one episode.

    Attributes:
        kind: ``ik`` (a waypoint has no joint solution) or ``no_plan`` (no timed path, or the task
            cannot be done in this control mode).
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
