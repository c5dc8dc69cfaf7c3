"""docs/metrics.md names exactly the scalars that the real code logs."""

import contextlib
import io
import json
import re
from pathlib import Path

import torch
from helpers.toy_policies import ConstantTargetPolicy, NoPrefix
from torch import nn

from rlft.config.learning import SftConfig, TrainConfig
from rlft.config.schema import ModelConfig, RunConfig
from rlft.evaluate import EpisodeResult, EvalResult, Protocol
from rlft.evaluate.result import summarise
from rlft.learn.ppo import PpoUpdater
from rlft.learn.sft import SftTrainer
from rlft.policy.actor_critic import ActorCritic
from rlft.policy.critic import Critic
from rlft.policy.denoise import make_schedule
from rlft.policy.noise import NoiseHead
from rlft.policy.pi0.transforms import Pi0Input
from rlft.progress import Progress
from rlft.rollout.buffer import RolloutBuffer
from rlft.rollout.sampler import RolloutStats
from rlft.rollout.store import StoreChoice
from rlft.run.guards import Probe
from rlft.run.runner import PPORunner
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

    def __init__(self, model: ActorCritic, rows: int = 8) -> None:
        self.model, self.rows = model, rows
        self.T, self.E = 1, rows

    def collect(self, iteration: int) -> tuple[RolloutBuffer, RolloutStats]:
        n, model = self.rows, self.model
        generator = torch.Generator().manual_seed(iteration)
        prefix = NoPrefix(torch.ones(n, 2))
        noise = torch.randn(n, 5, model.policy.horizon, model.policy.action_width, generator=generator)
        sample = model.sample(prefix, noise, torch.zeros(n, dtype=torch.long), None)
        executed = torch.full((n,), model.act_steps)
        no = torch.zeros(n, dtype=torch.bool)
        buffer = RolloutBuffer(1, n, torch.device("cpu"), torch.device("cpu"))
        buffer.add(
            0, prefix=prefix, chain=sample.chain, drawn_step=sample.drawn_step, n_executed=executed,
            log_prob=sample.log_prob.joint(executed), value=sample.value,
            rewards=torch.randn(n, model.act_steps, generator=generator), terminated=~no, truncated=no, invalid=no,
            final_value=torch.zeros(n),
        )  # fmt: skip
        return buffer, RolloutStats(env_steps=n, episode_returns=[1.0], episode_lengths=[1], episode_successes=[True])


def evaluation(label: str) -> EvalResult:
    episode = EpisodeResult(0, 1, None, {}, True, True, 1, 1.0, {"<name>": 1.0})
    settings = EnvSettings("toy", "Toy-v0", 1, 1, "pd_ee_delta_pos")
    protocol = Protocol.of(settings, select="seeds", episodes=1, seed=0, episode_ids=None, num_steps=4, act_steps=1)
    return summarise(label, protocol, [episode], seconds=0.1, restarted=0)


def test_every_scalar_of_ppo_is_in_the_glossary_and_no_other(tmp_path: Path):
    torch.set_num_threads(1)
    train = TrainConfig(n_train_itr=2, n_critic_warmup_itr=1, batch_size=4, update_epochs=2, val_freq=1)
    cfg = RunConfig(train=train, model=ModelConfig(path="warm"))  # so that it is probed
    policy = ConstantTargetPolicy()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        noise, critic = NoiseHead(policy.feature_dim, policy.action_width, 0.08, 0.16, learned=True), Critic(4, 0, [8])
    model = ActorCritic(policy, noise, critic, make_schedule("flow_noise", 4, 0.5), 1, [0, 1])
    with contextlib.closing(Tracker(tmp_path)) as tracker:
        runner = PPORunner(
            cfg,
            model,
            OneShotSampler(model),
            PpoUpdater(model, train, "sum"),
            store=StoreChoice("prefix", "it fits"),
            evaluate=evaluation,
            probe=lambda episodes: Probe(episodes, 0.5, 0.75),
            save=lambda state, best: None,
            tracker=tracker,
            progress=Progress("rl", io.StringIO()),
        )
        runner.run()
    assert logged(tmp_path, "rl") == documented("rl")
    assert logged(tmp_path, "eval") == documented("eval")
    assert logged(tmp_path, "probe") == documented("probe")


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
