"""Bytes by formula against bytes counted while small runs really roll out, update and warm up."""

import dataclasses
import itertools

import pytest
import torch
from helpers.plan_cases import bare_policy, blank_chunks, blank_inputs, toy_rollout, toy_runner, toy_settings, update
from helpers.plan_meter import LiveBytes, SavedBytes
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rlft.config.load import changed, load
from rlft.plan.activations import encode_bytes, saved_by_expert, saved_by_heads, saved_by_prefix
from rlft.plan.flops import update_steps
from rlft.plan.memory import HOST, Assumed, _rollout_phase, plan_rl, plan_sft
from rlft.plan.network import network_of
from rlft.plan.rollout import (
    chain_bytes,
    decision_bytes,
    image_row_bytes,
    part_bytes,
    pinned_blocks,
    prefix_row_bytes,
)

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
    (IMAGES, "model.train_vlm=true", "model.kind=small_pi05", "n_action_steps=10", ODD),
]


def planned(cfg, runner, spec):
    tokens = runner.objective.actor.policy.prompt_length
    assumed = Assumed(tokens=tokens, privileged_dim=spec.privileged_dim, cores=1)
    return plan_rl(cfg, assumed, cfg.buffer.store), network_of(cfg, tokens=tokens)


def nbytes(tensor):
    return tensor.numel() * tensor.element_size()


@pytest.mark.parametrize("overrides", CASES[2:5], ids=" ".join)
def test_weights_gradients_and_optimizer_are_exact(overrides):
    cfg = toy_settings(*overrides)
    runner, spec = toy_runner(cfg)
    buffer, updater = toy_rollout(runner), runner.updater
    optimizers, gradients = tuple(updater.optimizers.values()), {}

    def low(parameter):
        if parameter.dtype != torch.float32:
            gradients[parameter] = nbytes(parameter.grad)

    def full(optimizer, *_):
        gradients.update({master: nbytes(master.grad) for master in optimizer.masters if master.grad is not None})

    for parameter in runner.objective.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(low)
    for optimizer in optimizers:
        optimizer.register_step_pre_hook(full)
    update(runner, buffer)  # one minibatch
    used = planned(cfg, runner, spec)[0].used[HOST]
    assert used["weights"] == sum(nbytes(parameter) for parameter in runner.objective.parameters())
    assert used["gradients"] == sum(gradients.values())
    states = [state for optimizer in optimizers for state in optimizer.state.values()]
    held = [tensor for state in states for name, tensor in state.items() if name != "step"]
    held += [master for optimizer in optimizers for master in optimizer.state_dict()["masters"]]
    assert used["optimizer"] == sum(nbytes(tensor) for tensor in held)
    assert used["buffer"] == buffer.nbytes()


@pytest.mark.parametrize("overrides", CASES, ids=" ".join)
@pytest.mark.parametrize("rows", [4, 16])
def test_what_an_update_saves_for_its_backward(overrides, rows):
    one_minibatch = {"train.batch_size": rows, "env.n_steps_rollout": rows * 5 // 4}
    cfg = changed(toy_settings(*overrides), one_minibatch)
    runner, spec = toy_runner(cfg)
    buffer = toy_rollout(runner)
    with SavedBytes(runner.objective) as saved:
        update(runner, buffer)
    _, size = planned(cfg, runner, spec)
    steps = update_steps(cfg)
    predicted = saved_by_expert(size, rows, steps)
    if cfg.model.train_vlm:
        predicted += saved_by_prefix(size, rows)
    heads = saved_by_heads(cfg, size, rows, steps, spec.privileged_dim)
    assert predicted.nbytes(checkpointing=False) + heads == pytest.approx(saved.nbytes, rel=0.05)


@pytest.mark.parametrize("overrides", [*CASES[:3], CASES[5]], ids=" ".join)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_most_that_an_update_holds(overrides, checkpointing):
    """What it makes on top of weights, optimiser and buffer, op by op: the plan is above, and not far."""
    cfg = toy_settings(*overrides, f"model.gradient_checkpointing={checkpointing}", "train.micro_batch_size=8")
    runner, spec = toy_runner(cfg)
    buffer = toy_rollout(runner)
    update(runner, buffer)  # the optimiser's state is there from now on
    with LiveBytes() as held:
        update(runner, buffer, 1)
    used = planned(cfg, runner, spec)[0].used[HOST]
    assert 0.8 <= held.peak / (used["gradients"] + used["activations"]) <= 1.03


@pytest.mark.parametrize("cameras", [1, 3])
@pytest.mark.parametrize(
    "overrides", [("policy=small",), ("policy=small_pi05", ODD), ("policy=small", "model.dtype=bfloat16")]
)
def test_the_most_that_encoding_holds(overrides, cameras):
    pictures = f"env.cameras=[{', '.join(f'{{name: camera{i}}}' for i in range(cameras))}]"
    cfg = load("train_rl", [*overrides, pictures])
    size, policy = network_of(cfg), bare_policy(cfg, CPU, cameras=cameras)
    for rows in (1, 8):
        inputs = blank_inputs(size, rows, CPU)
        with LiveBytes() as held, torch.no_grad():
            policy.encode(inputs)
        assert held.peak == pytest.approx(encode_bytes(size, rows), rel=0.1)


def test_layers_of_the_real_experts_size():
    """The real expert's widths, heads and prefix, two layers of it."""
    real = {"image_size": 224, "expert_width": 1024, "depth": 2, "head_dim": 256, "vlm_width": 16, "vision_width": 4}
    small = ", ".join(f"{name}: {value}" for name, value in {**real, "vision_depth": 1, "vision_heads": 1}.items())
    cfg = load("train_rl", [f"model.small={{{small}}}", "model.dtype=bfloat16", "n_action_steps=50"])
    size, policy, steps = network_of(cfg), bare_policy(cfg, CPU), 2
    expert = network_of(load("train_rl", ["policy=pi0"])).expert
    assert size.expert == expert
    with torch.no_grad():
        prefix = policy.encode(blank_inputs(size, 1, CPU))
    with SavedBytes(policy.model) as saved:
        policy.velocity(prefix, *blank_chunks(size, steps, CPU))
    assert saved_by_expert(size, 1, steps).nbytes(checkpointing=False) == pytest.approx(saved.nbytes, rel=0.02)


@pytest.mark.parametrize("expert_only", [False, True])
@pytest.mark.parametrize("kind", ["small", "small_pi05"])
def test_the_warm_up(kind, expert_only):
    rows = 8
    overrides = [f"policy={kind}", f"model.train_vlm={not expert_only}", f"sft.train_expert_only={expert_only}"]
    cfg = load("train_sft", [*overrides, f"sft.batch_size={rows}", "n_action_steps=10"])
    policy, size = bare_policy(cfg, CPU), network_of(cfg)
    actions, real = torch.zeros(rows, size.horizon, 1), torch.zeros(rows, size.horizon, dtype=torch.bool)
    inputs, noise = blank_inputs(size, rows, CPU), torch.Generator().manual_seed(0)
    with SavedBytes(policy.model) as saved:
        policy.sft_loss(policy.encode(inputs), actions, real, noise)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        policy.sft_loss(policy.encode(inputs), actions, real, noise).backward()
    assumed = Assumed(cores=1, frames=10)
    assert counter.get_total_flops() == pytest.approx(plan_sft(cfg, assumed, cached=False).flops.sft_step, rel=1e-3)
    plan = plan_sft(cfg, assumed, cached=expert_only)  # with kept prefixes nothing is encoded beside
    step = plan.used[HOST]["activations"] - rows * prefix_row_bytes(size, size.dtype)
    assert step == pytest.approx(saved.nbytes, rel=0.05)
    trained = sum(nbytes(parameter) for parameter in policy.actor_parameters())
    assert (plan.used[HOST]["gradients"], plan.used[HOST]["optimizer"]) == (trained, 2 * trained)


@pytest.mark.parametrize("overrides", CASES[:5], ids=" ".join)
def test_the_most_that_a_rollout_holds_beside_its_buffer(overrides):
    """The second one: the buffer is there. Decisions that wait for their outcome and final values are in it."""
    cfg = toy_settings(*overrides, "eval.num_envs=1", "env.max_episode_len=10")
    runner, spec = toy_runner(cfg)
    toy_rollout(runner)
    with LiveBytes() as held:
        runner.sampler.collect(1)
    tokens = runner.objective.actor.policy.prompt_length
    assumed, size = Assumed(tokens=tokens, cores=1), network_of(cfg, tokens=tokens)
    privileged = spec.privileged_dim if cfg.critic.inputs != "features" else 0
    assert 0.88 <= held.peak / _rollout_phase(cfg, size, assumed, privileged) <= 1.03
    assert held.alive < 0.05 * held.peak, "something of a rollout is left beside its buffer"


def test_what_waits_to_be_copied():
    base = ["train.micro_batch_size=3", "critic.inputs=both", "train.batch_size=16"]
    for store in (PREFIX, IMAGES):
        cfg = toy_settings(*base, store)
        runner, spec = toy_runner(cfg)
        gathered = [nbytes(x) for x in toy_rollout(runner).gather(torch.arange(3)).tensors()]
        tokens = runner.objective.actor.policy.prompt_length
        size = network_of(cfg, tokens=tokens)
        rows = part_bytes(cfg, size, store=cfg.buffer.store, privileged_dim=spec.privileged_dim)
        assert sorted(gathered) == sorted(3 * n for n in rows)
        assumed = Assumed(tokens=tokens, privileged_dim=spec.privileged_dim, cores=1)
        sent = pinned_blocks([4 * chain_bytes(cfg, size), 4 * image_row_bytes(size)])

        def staging(model, buffer, cfg=cfg, assumed=assumed):
            cfg = changed(cfg, {"model.device": model, "buffer.device": buffer})
            used = plan_rl(cfg, assumed, cfg.buffer.store).used
            return {device: parts["staging"] for device, parts in used.items() if parts["staging"]}

        assert staging(HOST, HOST) == {}
        assert staging("cuda:0", "cuda:0") == {HOST: sent}
        assert staging("cuda:0", "cuda:1") == {HOST: sent, "cuda:1": sum(gathered)}
        assert staging("cuda:0", HOST) == {HOST: sent + 2 * pinned_blocks(gathered)}
    assert [pinned_blocks([n]) for n in (0, 1, 4096, 4097)] == [0, 1, 4096, 8192]


def test_memory_grows_with_what_it_should():
    base = toy_settings(PREFIX, "n_action_steps=10", "sft.batch_size=16")
    assumed = Assumed(cores=1, frames=100)

    def used(component, plan=plan_rl, **changes):
        cfg = dataclasses.replace(base, **{k: v for k, v in changes.items() if k != "assumed"})
        return plan(cfg, assumed, "prefix").used[HOST][component]

    small, large = (dataclasses.replace(base.train, micro_batch_size=n) for n in (4, 8))
    assert used("activations", train=large) == pytest.approx(2 * used("activations", train=small), rel=0.15)
    assert used("buffer", env=dataclasses.replace(base.env, num_envs=8)) == 2 * used("buffer")
    cached, anew = (plan_sft(base, assumed, cached=flag).used[HOST]["buffer"] for flag in (True, False))
    assert cached - anew == plan_sft(base, assumed, cached=True).kept_prefixes > 0


def test_a_gpu_fetches_the_next_part_while_one_is_used():
    cfg = load("train_rl", ["train.micro_batch_size=8"])
    host = plan_rl(cfg, Assumed(cores=1), "prefix").used[HOST]["activations"]
    cfg, size = changed(cfg, {"model.device": "cuda:0"}), network_of(cfg)
    part = 8 * (prefix_row_bytes(size, size.dtype) + decision_bytes(cfg, size, 0))
    assert plan_rl(cfg, Assumed(cores=1), "prefix").used["cuda:0"]["activations"] == host + part


def test_devices_that_coincide_add_up():
    cfg, plans = load("train_rl", ["task=toy"]), {}
    for devices in itertools.product(("cpu", "cuda:0", "cuda:1"), repeat=3):
        cfg = changed(cfg, dict(zip(("sim.device", "model.device", "buffer.device"), devices)))
        plan = plan_rl(cfg, Assumed(cores=1), "prefix")
        assert set(plan.used) == {HOST, *devices}
        plans[devices] = {
            part: sum(used[part] for used in plan.used.values()) for part in ("weights", "buffer", "optimizer")
        }
    assert len({tuple(parts.values()) for parts in plans.values()}) == 1


def test_a_simulation_on_a_gpu_is_not_made_up():
    cfg = load("train_rl", ["placement=three_gpus"])
    plan = plan_rl(cfg, Assumed(cores=1), "prefix")
    assert plan.unknown == ("cuda:0",)
    assert plan.used["cuda:0"]["simulation"] == 0
    told = plan_rl(cfg, Assumed(cores=1, sim_bytes=5), "prefix")
    assert (told.unknown, told.used["cuda:0"]["simulation"]) == ((), 5)


def test_every_process_of_the_simulator_counts():
    cfg = load("train_rl", ["env.num_envs=16", "eval.num_envs=16"])
    one, two = (plan_rl(cfg, Assumed(cores=n), "prefix").used[HOST]["simulation"] for n in (1, 2))
    assert two - one == 2 * (1050 - 4) * 10**6  # one process more for the rollout, and one for the evaluation
    alone = load("train_rl", ["env.num_envs=16", "eval.num_envs=16", "sim.num_workers=0"])
    assert plan_rl(alone, Assumed(cores=2), "prefix").used[HOST]["simulation"] == (1050 + 31 * 4) * 10**6
