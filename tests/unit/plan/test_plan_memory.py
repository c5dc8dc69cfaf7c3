"""The plan of small runs against bytes counted while they really roll out, update and train supervised."""

import itertools

import pytest
import torch
from helpers.plan_cases import toy_rollout, toy_runner, toy_settings, update
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.update_memory import peak_bytes  # the allocator's own events, no op is looked at
from rlft.config.load import changed, load
from rlft.data.dataset import DemoMeta, DemoSet
from rlft.learn.sft import SftTrainer
from rlft.plan.memory import HOST, Assumptions, plan_rl, plan_sft, simulator_bytes
from rlft.plan.network import pinned_blocks, rollout_bytes
from rlft.run.assembly.policy import demo_stats, fresh_policy
from rlft_envs.simulator import Simulator

CPU = torch.device("cpu")
ODD = "model.small={image_size: 28, kv_heads: 2, vlm_width: 96, expert_width: 48, depth: 3}"
DEEP = "model.small={image_size: 56, depth: 4, expert_width: 96}"
PREFIX, IMAGES = "buffer.store=prefix", "buffer.store=images"
CASES = [
    (PREFIX, "n_action_steps=10"),
    (PREFIX, "num_steps=2", "n_action_steps=20", DEEP),
    (PREFIX, "model.kind=small_pi05", "n_action_steps=10", "model.dtype=bfloat16", "critic.inputs=both"),
    (IMAGES, "n_action_steps=10", "model.dtype=bfloat16"),
    (IMAGES, "model.train_vlm=true", "exploration.method=flow_sde_single", DEEP),
    (PREFIX, "train.objective=grpo", "train.options.group_size=2", "env.max_episode_len=20", "n_action_steps=10"),
    (IMAGES, "model.train_vlm=true", "model.kind=small_pi05", "n_action_steps=10", ODD),
]


def whole_rollout(runner):
    rollout = toy_rollout(runner)
    rollout.dropped = None  # groups of equal returns would leave a smaller minibatch
    return rollout


def planned(cfg, runner, spec):
    tokens = runner.objective.actor.policy.prompt_length
    return plan_rl(cfg, Assumptions(tokens=tokens, privileged_dim=spec.privileged_dim, cores=1), cfg.buffer.store)


@pytest.mark.parametrize("words", CASES[2:5], ids=" ".join)
def test_weights_gradients_and_optimizer_are_exact(words):
    cfg = toy_settings(*words)
    runner, spec = toy_runner(cfg)
    buffer, gradients, optimizers = whole_rollout(runner), {}, list(runner.updater.optimizers.values())
    for optimizer in optimizers:  # by tensor: the hook is called twice where torch has patched AdamW.step as well
        optimizer.register_step_pre_hook(
            lambda optimizer, *_: gradients.update({m: m.grad for m in optimizer.masters if m.grad is not None})
        )
    update(runner, buffer)  # one minibatch
    used = planned(cfg, runner, spec).used[HOST]
    assert used["weights"] == sum(parameter.nbytes for parameter in runner.objective.parameters())
    assert used["gradients"] == sum(x.nbytes for x in gradients.values())
    states = [state for optimizer in optimizers for state in optimizer.state.values()]
    held = [tensor for state in states for name, tensor in state.items() if name != "step"]
    held += [master for optimizer in optimizers for master in optimizer.state_dict()["masters"]]
    assert used["optimizer"] == sum(tensor.nbytes for tensor in held)


@pytest.mark.parametrize("words", CASES, ids=" ".join)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("micro", [8, 16])
def test_the_most_that_an_update_holds(words, checkpointing, micro):
    """What it makes on top of weights, optimiser and buffer: with micro-batches before it, and in one pass."""
    cfg = toy_settings(*words, f"model.gradient_checkpointing={checkpointing}", f"train.micro_batch_size={micro}")
    runner, spec = toy_runner(cfg)
    buffer = whole_rollout(runner)
    update(runner, buffer)  # the optimiser's state is there from now on
    held = peak_bytes(lambda: update(runner, buffer, 1))
    plan = planned(cfg, runner, spec)
    assert plan.peak == "update"
    wanted = plan.used[HOST]["gradients"] + plan.used[HOST]["activations"]
    assert 0.85 <= held / wanted <= 1.15


def counted(work):
    """FLOPs by torch's own counter, with attention as single products: their backward pass computes nothing anew."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("words", CASES, ids=" ".join)
def test_operations_of_an_update(words):
    """Of the modules on the CPU and of their shapes; a fused backward pass has the products of attention once more."""
    cfg = toy_settings(*words, "train.recompute_old_logprob=false")
    runner, spec = toy_runner(cfg)
    buffer = whole_rollout(runner)
    real = counted(lambda: update(runner, buffer))
    plan = planned(cfg, runner, spec)
    assert real == pytest.approx(counted(lambda: plan.network._train(16, cfg.buffer.store, False)), rel=1e-4)
    assert 1.0 < 16 * plan.flops["update, one decision"] / real < 1.05


@pytest.mark.parametrize("words", [*CASES[:3], CASES[4]], ids=" ".join)
def test_the_most_that_a_rollout_holds_beside_its_buffer(words):
    """The second one: the buffer is there. What is decided is stored at once, and final values take no more."""
    cfg = toy_settings(*words, "eval.num_envs=1", "env.max_episode_len=10", "train.micro_batch_size=1")
    runner, spec = toy_runner(cfg)
    whole_rollout(runner)
    held = peak_bytes(lambda: runner.sampler.collect(1))
    plan = planned(cfg, runner, spec)
    wanted = cfg.env.num_envs * plan.network.decide.peak
    assert 0.9 <= held / wanted <= 1.03
    assert plan.peak == "update" or plan.used[HOST]["activations"] == wanted


@pytest.mark.parametrize("expert_only", [False, True])
@pytest.mark.parametrize("kind", ["small", "small_pi05"])
def test_supervised_training(kind, expert_only):
    words = [f"policy={kind}", f"sft.train_expert_only={expert_only}", "sft.cache_prefix=false", "sft.batch_size=8"]
    cfg = load("train_sft", ["task=toy", *words, "n_action_steps=10"])
    demos = demonstrations(24, 10)
    trainer = SftTrainer(fresh_policy(cfg, demo_stats(cfg, demos), CPU), demos, cfg.sft, seed=0)
    trainer.step()
    held = [peak_bytes(trainer.step) for _ in range(2)][1]  # the last step's gradients are there, and go first
    plan = plan_sft(cfg, Assumptions(tokens=trainer.policy.prompt_length, frames=24), "images")
    used = plan.used[HOST]
    assert 0.95 <= (held + used["gradients"]) / (used["gradients"] + used["activations"]) <= 1.05
    real = counted(trainer.step)
    assert real == pytest.approx(counted(lambda: plan.network._train(8, "images", False)), rel=1e-4)
    assert 1.0 < plan.flops["one step"] / real < 1.05
    assert used["optimizer"] == sum(
        x.nbytes for state in trainer.optimizer.state.values() for name, x in state.items() if name != "step"
    )


def test_what_waits_to_be_copied():
    for store in (PREFIX, IMAGES):
        cfg = toy_settings("train.micro_batch_size=3", "critic.inputs=both", store)
        runner, spec = toy_runner(cfg)
        gathered = [x.nbytes for x in whole_rollout(runner).rows(torch.arange(3)).tensors()]
        plan = planned(cfg, runner, spec)
        net = plan.network
        assert gathered == [3 * n for n in net.gathered[cfg.buffer.store]]
        sent = pinned_blocks(4 * n for n in (*net.draws, sum(net.kept["images"])))
        for model, buffer, wanted in [
            (HOST, HOST, {}),
            ("cuda:0", "cuda:0", {HOST: sent}),
            ("cuda:0", "cuda:1", {HOST: sent, "cuda:1": sum(gathered)}),
            ("cuda:0", HOST, {HOST: sent + 2 * pinned_blocks(gathered)}),
        ]:
            used = planned(changed(cfg, {"model.device": model, "buffer.device": buffer}), runner, spec).used
            assert {device: parts["staging"] for device, parts in used.items() if parts["staging"]} == wanted
    assert [pinned_blocks([n]) for n in (0, 1, 4096, 4097)] == [0, 1, 4096, 8192]


def test_a_gpu_fetches_the_next_part_while_one_is_used():
    cfg = load("train_rl", ["train.micro_batch_size=8"])
    host = plan_rl(cfg, Assumptions(cores=1), "prefix")
    gpu = plan_rl(changed(cfg, {"model.device": "cuda:0"}), Assumptions(cores=1), "prefix")
    more = gpu.used["cuda:0"]["activations"] - host.used[HOST]["activations"]
    assert more == 8 * sum(host.network.gathered["prefix"])


def test_devices_that_coincide_add_up():
    cfg, plans = load("train_rl", ["task=toy"]), set()
    for devices in itertools.product(("cpu", "cuda", "cuda:1"), repeat=3):
        names = ("sim.device", "model.device", "buffer.device")
        used = plan_rl(changed(cfg, dict(zip(names, devices))), Assumptions(cores=1), "prefix").used
        assert set(used) == {HOST, *("cuda:0" if device == "cuda" else device for device in devices)}
        plans.add(tuple(sum(parts[x] for parts in used.values()) for x in ("weights", "buffer", "optimizer")))
    assert len(plans) == 1


class Elsewhere(Simulator):
    """Nobody measured it."""

    def single(self, settings): ...


def test_every_process_of_the_simulator_counts_and_none_is_made_up():
    cfg = load("train_rl", ["env.num_envs=16", "eval.num_envs=16"])
    one, two = (simulator_bytes(cfg, n) for n in (1, 2))
    assert two - one == 2 * (1050 - 4) * 10**6  # one process more for the rollout, and one for the evaluation
    cfg = changed(cfg, {"sim.num_workers": 0})
    assert simulator_bytes(cfg, 2) == (1050 + 31 * 4) * 10**6
    assert simulator_bytes(changed(cfg, {"env.cameras": []}), 2) == (740 + 31 * 4) * 10**6
    assert simulator_bytes(changed(cfg, {"env.simulator": f"{__name__}:Elsewhere"}), 2) is None
    gpu = load("train_rl", ["placement=three_gpus"])
    assert simulator_bytes(gpu, 2) is None
    for told, unknown in ((None, ("cuda:0",)), (5, ())):
        plan = plan_rl(gpu, Assumptions(cores=1, sim_bytes=told), "prefix")
        assert (plan.unknown, plan.used["cuda:0"]["simulation"]) == (unknown, told or 0)


def demonstrations(frames, horizon):
    n, none = frames + horizon, {"control_mode": "none", "planner": "none", "fingerprint": "none"}
    meta = DemoMeta(env_id="none", **none, cameras=("top",), state_terms=(), fps=20, run_seed=0)
    images = {"top": torch.zeros(n, 56, 56, 3, dtype=torch.uint8)}
    state, actions = torch.rand(n, 2), torch.rand(n, 2)
    return DemoSet(meta, images, state, actions, torch.tensor([n]), ["reach"] * n, horizon)


GROUPS = ("train.objective=grpo", "train.options.group_size=2", "env.max_episode_len=20")
SIZES = [
    (IMAGES, "n_action_steps=7", "num_steps=2"),
    (PREFIX, "critic.inputs=both", "env.num_envs=2", "train.batch_size=8"),
    (IMAGES, "env.cameras=[]"),
    (PREFIX, "env.cameras=[{name: top, height: 28, width: 28}, {name: side}]"),
    (PREFIX, "model.kind=small_pi05"),
    (PREFIX, "model.dtype=bfloat16"),
    (PREFIX, *GROUPS),
    (IMAGES, *GROUPS, "train.options.estimator=rloo"),
    (PREFIX, "train.objective=reinforce:Reinforce"),
]


@pytest.mark.parametrize("words", SIZES, ids=" ".join)
def test_the_rollouts_size_equals_a_real_rollouts(words):
    cfg = toy_settings(*words)
    runner, spec = toy_runner(cfg)
    held, policy = toy_rollout(runner).nbytes(), runner.objective.actor.policy
    how = {"store": cfg.buffer.store, "privileged_dim": spec.privileged_dim, "tokens": policy.prompt_length}
    assert rollout_bytes(cfg, policy, **how) == held
    assumed = Assumptions(tokens=policy.prompt_length, privileged_dim=spec.privileged_dim, cores=1)
    assert plan_rl(cfg, assumed, cfg.buffer.store).used[HOST]["buffer"] == held
