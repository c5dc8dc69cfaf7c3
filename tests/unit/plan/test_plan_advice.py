"""What is advised makes the run fit, is no more than needed, and is not made up where nothing helps."""

import pytest

from rlft.config.load import load
from rlft.learn import prefix_cache
from rlft.plan.advice import advise, changed, prefix_room, spell
from rlft.plan.machine import GIB, SHARE, Capacity, Machine
from rlft.plan.memory import HOST, Assumed
from rlft.rollout import store

BIG = ("algo=pi_rl", "env.max_episode_len=80", "train.micro_batch_size=null")


def machine(gpu, host, *, sim=0.0, cores=2):
    gpus = {f"cuda:{i}": Capacity(int(gpu * GIB), "as given") for i in range(3)}
    assumed = Assumed(cores=cores, frames=20_000, sim_bytes=int(sim * GIB))
    return Machine({HOST: Capacity(int(host * GIB), "as given"), **gpus}, assumed)


CASES = {
    "a published batch on small GPUs": ("train_rl", machine(24, 64), ["policy=pi0", "placement=three_gpus", *BIG]),
    "on one GPU": ("train_rl", machine(20, 64), ["policy=pi05", "placement=one_gpu", "model.dtype=bfloat16", *BIG]),
    "asked to store prefixes": (
        "train_rl",
        machine(24, 12),
        ["policy=pi0", "placement=one_gpu", "buffer.store=prefix", *BIG, "train.micro_batch_size=16"],
    ),
    "in float32": (
        "train_rl",
        machine(24, 64),
        ["policy=pi0", "placement=one_gpu", "model.dtype=float32", "train.micro_batch_size=null"],
    ),
    "the VLM trains": (
        "train_rl",
        machine(24, 64),
        ["policy=pi0", "placement=one_gpu", "model.train_vlm=true", "train.micro_batch_size=null"],
    ),
    "many simulators": ("train_rl", machine(24, 16, cores=16), ["policy=small", "env.num_envs=64"]),
    "checkpointing": (
        "train_rl",
        machine(15.2, 64),
        [
            "policy=pi0",
            "placement=one_gpu",
            "num_steps=20",
            "eval.num_envs=1",
            "env.num_envs=4",
            "train.batch_size=80",
            "model.gradient_checkpointing=false",
        ],
    ),
    "a whole warm-up": (
        "train_sft",
        machine(24, 64),
        ["policy=pi0", "placement=one_gpu", "sft.train_expert_only=false"],
    ),
    "a large warm-up": (
        "train_sft",
        machine(80, 64),
        ["policy=pi0", "placement=one_gpu", "sft.train_expert_only=false"],
    ),
    "kept prefixes": ("train_sft", machine(40, 64), ["policy=pi05", "placement=one_gpu", "sft.cache_prefix=true"]),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_is_advised_makes_it_fit_and_nothing_of_it_can_be_spared(case):
    stage, where, overrides = case
    cfg = load(stage, overrides)
    assert where.overfull(where.plan(stage, cfg))
    advice = advise(stage, cfg, where)
    assert advice
    mended = load(stage, [*overrides, *spell(advice).split()])  # as it would be typed
    assert mended == changed(cfg, advice)
    assert where.overfull(where.plan(stage, mended)) == []
    for key in advice.keys() - {"train.batch_size"}:  # follows from the number of environments
        without = changed(cfg, {name: value for name, value in advice.items() if name != key})
        assert where.overfull(where.plan(stage, without)), key


def test_a_part_of_a_minibatch_is_as_large_as_can_be():
    stage, where, overrides = CASES["a published batch on small GPUs"]
    cfg = load(stage, overrides)
    (key, value), *rest = advise(stage, cfg, where).items()
    assert (key, rest) == ("train.micro_batch_size", [])
    assert where.overfull(where.plan(stage, changed(cfg, {key: 2 * value})))


def test_what_harms_less_is_preferred():
    stage, where, overrides = CASES["a large warm-up"]
    mild = {"model.gradient_checkpointing", "sft.batch_size"}
    assert advise(stage, load(stage, overrides), where).keys() == mild  # not the expert alone
    stage, _, overrides = CASES["the VLM trains"]
    assert advise(stage, load(stage, overrides), machine(90, 64)).keys() == {"train.micro_batch_size"}


def test_the_weights_alone_may_be_too_much():
    cfg = load("train_rl", ["policy=pi0", "placement=one_gpu"])
    assert advise("train_rl", cfg, machine(8, 64)) is None
    assert advise("train_rl", cfg, machine(80, 64)) == {}


def test_nobody_is_advised_about_a_device_that_nobody_knows():
    cfg = load("train_rl", ["policy=pi0", "placement=one_gpu"])
    where = Machine({HOST: Capacity(64 * GIB, ""), "cuda:0": Capacity(None, "not here")}, Assumed(cores=2))
    plan = where.plan("train_rl", cfg)
    assert where.fits(plan, "cuda:0") is None
    assert advise("train_rl", cfg, where) == {}
    assert plan.store == "prefix"


def test_auto_goes_by_the_share_that_the_run_itself_goes_by():
    assert SHARE == store.SHARE == prefix_cache.SHARE
    cfg = load("train_rl", ["policy=pi0", "placement=one_gpu", "env.num_envs=64"])
    plan = machine(80, 64).plan("train_rl", cfg)
    used = plan.used[HOST]
    just = used["libraries"] + used["simulation"] + used["buffer"] / SHARE
    assert plan.store == "prefix"
    assert machine(80, 1.01 * just / GIB).plan("train_rl", cfg).store == "prefix"
    assert machine(80, 0.99 * just / GIB).plan("train_rl", cfg).store == "images"
    frozen = load("train_sft", ["policy=pi0", "placement=one_gpu"])
    assert machine(80, 64).plan("train_sft", frozen).kept_prefixes == 0  # 20,000 frames of 5 MB
    assert machine(300, 64).plan("train_sft", frozen).kept_prefixes > 0


def test_room_for_prefixes_is_pointed_out():
    stage, where, overrides = CASES["a published batch on small GPUs"]
    cfg = load(stage, overrides)
    assert where.plan(stage, cfg).store == "images"
    advised = advise(stage, cfg, where)
    room = prefix_room(cfg, advised, where)
    assert room == {**advised, "buffer.store": "prefix", "buffer.device": HOST}
    assert where.overfull(where.plan(stage, changed(cfg, room))) == []
    assert prefix_room(cfg, advised, machine(24, 8)) is None
    trains = changed(cfg, {"model.train_vlm": True})
    assert prefix_room(trains, {}, where) is None
