"""Evaluations from settings: their protocol, and which weights they are of."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rlft.config.schema import RunConfig, SuiteMemberConfig
from rlft.errors import ConfigError, RlftError
from rlft.evaluate.loop import Evaluator
from rlft.evaluate.protocol import EvalProtocol, choose_ids
from rlft.files import content_hash
from rlft.manifest import sha256_of
from rlft.placement import Placement
from rlft.run.assembly.envs import check_task, configuration_space, eval_settings
from rlft.types import ConfigurationSpace, VecEnv


def build_evaluator(cfg: RunConfig, env: VecEnv, placement: Placement) -> Evaluator:
    """The evaluation loop on environments that run already; errors as of :func:`build_protocol`."""
    numbered = configuration_space(cfg)
    return Evaluator(env, placement, build_protocol(cfg, numbered), numbered)


def build_protocol(cfg: RunConfig, numbered: ConfigurationSpace | None) -> EvalProtocol:
    """What an evaluation has to keep equal to be comparable; see :func:`configuration_space` for ``numbered``.

    Raises:
        RlftError: the task cannot give the episodes that are asked for.
    """
    e = cfg.eval
    ids = choose_ids(e.select, e.episodes, e.seed, numbered)
    return EvalProtocol.of(
        eval_settings(cfg, e.num_envs),
        select=e.select,
        episodes=e.episodes if ids is None else len(ids),
        seed=e.seed,
        configuration_ids=ids,
        num_steps=cfg.num_steps_eval,
        act_steps=cfg.act_steps,
    )


def policy_fingerprint(cfg: RunConfig) -> str | None:
    """What the policy's numbers are made of, as a hash; None for random weights.

    Raises:
        RlftError: ``model.path`` is no directory.
    """
    if cfg.model.path is None:
        return None
    path = Path(cfg.model.path)
    if not path.is_dir():
        raise RlftError(f"model.path={path}: no such directory; give a checkpoint's pretrained_model/")
    others = (cfg.dataset_stats, cfg.model.tokenizer_path)
    return content_hash(
        {
            "files": _file_hashes(path),
            "others": [_file_hashes(Path(p)) if p is not None and Path(p).exists() else p for p in others],
            "dtype": cfg.model.dtype,
            "prefix_dtype": cfg.buffer.prefix_dtype,
        }
    )


def _file_hashes(path: Path) -> dict[str, str]:
    """SHA-256 of a file, or of every file below a directory, by its name in there."""
    if path.is_file():
        return {path.name: sha256_of(path)}
    return {p.relative_to(path).as_posix(): sha256_of(p) for p in sorted(path.rglob("*")) if p.is_file()}


def member_settings(cfg: RunConfig, member: SuiteMemberConfig) -> RunConfig:
    """The settings of one evaluation of a suite."""
    env = replace(
        cfg.env,
        id=member.id or cfg.env.id,
        make_kwargs={**cfg.env.make_kwargs, **member.make_kwargs},
        instruction=cfg.env.instruction if member.instruction is None else member.instruction,
    )
    return replace(cfg, env=env, eval=replace(cfg.eval, suite=None, label=member.name))


def member_protocols(settings: Mapping[str, RunConfig]) -> dict[str, EvalProtocol]:
    """The protocol of every member of a suite, by name; nothing has been started yet when one cannot be had.

    Raises:
        ConfigError: names every member that does not exist, lacks assets, or has too few configurations.
    """
    protocols: dict[str, EvalProtocol] = {}
    problems: dict[str, list[tuple[str, str]]] = {}  # what several members lack is said once
    for name, one in settings.items():
        try:
            check_task(one)
            protocols[name] = build_protocol(one, configuration_space(one))
        except RlftError as error:
            reason = "; ".join(error.problems) if isinstance(error, ConfigError) else str(error)
            problems.setdefault(reason.replace(one.env.id, ""), []).append((name, reason))
    if problems:
        raise ConfigError(
            [f"eval.suite.members {', '.join(name for name, _ in found)}: {found[0][1]}" for found in problems.values()]
        )
    return protocols
