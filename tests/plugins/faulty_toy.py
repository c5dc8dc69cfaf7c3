"""The toy, failing on purpose, to test those who have to survive it: ``make_kwargs: {fault: {...}}``."""

import math
import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rlft_envs.toy import Toy, ToyEnv

FAULTY = "faulty_toy:FaultyToy"


@dataclass(frozen=True)
class Fault:
    # `raise` an exception, `exit` the process (status 7), `kill` it (signal 9), `hang`, or report
    # `nan_reward` or `nan_state`
    kind: str
    seed: int  # the episode that fails
    at_step: int = 1  # after this many executed steps; 0 fails in reset
    marker: str | None = None  # a file; where given, the fault fires only while it does not exist, and creates it


class FaultyToyEnv(ToyEnv):
    def __init__(self, settings):
        kwargs = dict(settings.make_kwargs)
        self._fault, self._reward_is_broken = Fault(**kwargs.pop("fault")), False
        super().__init__(replace(settings, make_kwargs=kwargs))

    def _start_episode(self, seed, configuration_id):
        super()._start_episode(seed, configuration_id)
        self._reward_is_broken = False
        self._fail_if_told(seed, 0)

    def _advance(self, action):
        outcome = super()._advance(action)
        self._fail_if_told(self.seed, self.elapsed + 1)
        return outcome

    def _dense_reward(self):
        return math.nan if self._reward_is_broken else super()._dense_reward()

    def _fail_if_told(self, seed, step):
        fault = self._fault
        if (seed, step) != (fault.seed, fault.at_step) or (fault.marker and Path(fault.marker).exists()):
            return
        if fault.marker:
            Path(fault.marker).touch()
        if fault.kind == "raise":
            raise RuntimeError("the toy environment was told to fail")
        if fault.kind == "exit":
            os._exit(7)
        if fault.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.kind == "hang":
            time.sleep(3600.0)
        self._reward_is_broken |= fault.kind == "nan_reward"
        if fault.kind == "nan_state":
            self._pos = np.full(2, np.nan)


class FaultyToy(Toy):
    def single(self, settings):
        return FaultyToyEnv(settings)
