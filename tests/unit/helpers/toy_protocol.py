"""Evaluations of the toy task: protocol and evaluator as the product assembles them, on environments of one's own."""

from helpers.toy_world import PLACEMENT, toy_env, toy_settings

from rlft.evaluate.loop import Evaluator
from rlft.evaluate.protocol import EvalProtocol, choose_ids
from rlft.types import EnvSettings
from rlft_envs.task import configuration_space


def toy_protocol(settings: EnvSettings, *, episodes=12, seed=7, select="seeds") -> EvalProtocol:
    ids = choose_ids(select, episodes, seed, configuration_space(settings))
    return EvalProtocol.of(
        settings, select=select, episodes=episodes if ids is None else len(ids), seed=seed, configuration_ids=ids,
        num_steps=3, act_steps=2,
    )  # fmt: skip


def toy_evaluator(*, num_envs=4, limit=9, episodes=12, seed=7, select="seeds", **env) -> Evaluator:
    settings = toy_settings(num_envs, limit=limit, **env)
    protocol = toy_protocol(settings, episodes=episodes, seed=seed, select=select)
    return Evaluator(toy_env(num_envs, limit=limit, **env), PLACEMENT, protocol, configuration_space(settings))
