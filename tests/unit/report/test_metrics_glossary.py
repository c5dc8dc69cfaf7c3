"""docs/metrics.md names exactly the scalars that the real code logs."""

import contextlib
import io
import json
import re
from pathlib import Path

import torch
from helpers.learners import make_actor, one_step, settings
from helpers.toy_policies import ConstantTargetPolicy, NoPrefix
from torch import nn

from rlft.config.learning import SftConfig
from rlft.config.load import changed
from rlft.evaluate.protocol import EvalProtocol
from rlft.evaluate.result import EpisodeResult, EvalResult, summarise
from rlft.learn.sft import SftTrainer
from rlft.learn.updater import Updater
from rlft.objective.base import Objective
from rlft.objective.grpo import GRPO
from rlft.objective.ppo import PPO
from rlft.policy.pi0.policy import Pi0Input
from rlft.progress import Progress
from rlft.rollout.buffer import Rollout
from rlft.rollout.sampler import RolloutStats
from rlft.rollout.store import StoreChoice
from rlft.run.guards import Probe
from rlft.run.runner import Runner
from rlft.run.tracking import Tracker
from rlft.types import EnvSettings

GLOSSARY = Path(__file__).parents[3] / "docs" / "metrics.md"


def documented(stage: str) -> set[str]:
    """The names in the first column of the tables of one stage's chapter."""
    chapter = re.search(rf"^## {stage}\n(.*?)(?=^## |\Z)", GLOSSARY.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert chapter, f"docs/metrics.md has no chapter {stage}"
    cells = re.findall(r"^\| (`[^|]*) \|", chapter[1], flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def logged(directory: Path, stage: str) -> set[str]:
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return {key for line in lines if line["stage"] == stage for key in line} - {"time", "stage", "step"}


class OneShotSampler:
    """Rollouts of one decision per environment in a task that ends at once; everything else is the real code."""

    def __init__(self, objective: Objective, rows: int = 8) -> None:
        self.objective, self.T, self.E = objective, 1, rows

    def collect(self, iteration: int) -> tuple[Rollout, RolloutStats]:
        generator = torch.Generator().manual_seed(iteration)
        rewards = torch.randn(self.E, generator=generator)
        rollout = one_step(self.objective, NoPrefix(torch.ones(self.E, 2)), lambda _: rewards, iteration)
        happened = {"episode_returns": [1.0], "episode_lengths": [1], "episode_successes": [True]}
        return rollout, RolloutStats(env_steps=self.E, **happened)


def evaluation(label: str) -> EvalResult:
    episode = EpisodeResult(0, 1, None, {}, True, True, 1, 1.0, {"<name>": 1.0})
    settings = EnvSettings("toy", "Toy-v0", 1, 1, "pd_ee_delta_pos")
    rules = {"select": "seeds", "episodes": 1, "seed": 0, "configuration_ids": None, "num_steps": 4, "act_steps": 1}
    protocol = EvalProtocol.of(settings, **rules)
    return summarise(label, protocol, [episode], seconds=0.1, restarted=0)


def train(tmp_path: Path, kind: type[Objective], **changes) -> set[str]:
    """What a run of two iterations logs."""
    torch.set_num_threads(1)
    cfg = settings(n_train_itr=2, n_critic_warmup_itr=1, batch_size=4, update_epochs=2, val_freq=1, **changes)
    # With a path, so that it is probed; episodes end with the rollout.
    cfg = changed(cfg, {"model.path": "warm", "env.n_steps_rollout": cfg.env.max_episode_len})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        objective = kind(make_actor(ConstantTargetPolicy(), std=(0.08, 0.16), learned=True), cfg)
    with contextlib.closing(Tracker(tmp_path)) as tracker:
        how = {"store": StoreChoice("prefix", "it fits"), "evaluate": evaluation, "save": lambda state, best: None}
        how |= {"probe": lambda episodes: Probe(episodes, 0.5, 0.75), "progress": Progress("rl", io.StringIO())}
        runner = Runner(
            cfg, objective, OneShotSampler(objective), Updater(objective, cfg.train), tracker=tracker, **how
        )
        runner.run()
    return logged(tmp_path, "rl")


def test_every_scalar_of_a_run_is_in_the_glossary_and_no_other(tmp_path: Path):
    ppo = train(tmp_path / "ppo", PPO)
    grpo = train(tmp_path / "grpo", GRPO, objective="grpo", options={"group_size": 4})
    assert ppo | grpo == documented("rl")
    assert {name.split("/")[0] for name in grpo ^ ppo} == {"value", "group", "update"}
    assert not [name for name in grpo if "value" in name or "critic" in name]
    for stage in ("eval", "probe"):
        assert logged(tmp_path / "ppo", stage) == documented(stage)


class TinyDemos:
    """A constant batch."""

    def sample(self, generator: torch.Generator, n: int):
        class Batch:
            obs, actions, is_pad = None, torch.zeros(n, 1, 2), torch.zeros(n, 1, dtype=torch.bool)
            index = torch.zeros(n, dtype=torch.int64)

        return Batch()


class TinyPolicy(nn.Module):
    """A loss with one parameter."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def set_trainable(self, *, vlm: bool) -> None:
        self.weight.requires_grad_(True)

    def actor_parameters(self):
        return [self.weight]

    def transform(self, obs):
        return Pi0Input(*torch.zeros(4, 1))

    def prepare(self, obs):
        return self.transform(obs)

    def actions_from_env(self, actions):
        return actions

    def encode(self, inputs):
        return inputs

    def sft_loss(self, prefix, actions, is_pad, generator):
        return self.weight.square().sum()


def test_every_scalar_of_the_warm_up_is_in_the_glossary_and_no_other():
    seen: set[str] = set()
    trainer = SftTrainer(TinyPolicy(), TinyDemos(), SftConfig(steps=2, warmup_steps=1), seed=0)
    trainer.run(lambda step, scalars: seen.update(scalars))
    assert seen == documented("sft")
