"""A policy of another package through every stage: it is found by name, trained, kept, continued and evaluated."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file
from toy_runs import TOY, equal, moved, scalars
from toy_runs import weights as weights_in

from rlft.config.load import load
from rlft.errors import ConfigError
from rlft.policy.pretrained import load_pretrained
from rlft.run import stages

KIND = "model.kind=their_policy.flow:FAMILY"
SFT = ["sft.batch_size=32", "sft.steps=200", "sft.log_freq=1", "sft.optimizer.lr=3e-3", "sft.train_expert_only=false"]
OURS = [*TOY, "sim.num_workers=0", "collect.num_episodes=6", "collect.num_procs=1", *SFT, "guard.probe_episodes=0"]


def settings(entry, run, *words):
    return load(entry, [*OURS, KIND, "model.options={width: 48}", f"output.dir={run}", *words])


def sft(run, *words):
    stages.train_sft(settings("train_sft", run, *words))
    return run / "sft" / "checkpoints" / "last" / "pretrained_model"


def rl(run, base, *words):
    stages.train_rl(settings("train_rl", run, f"model.path={base}", *words))


def weights(run, step):
    return weights_in(run, step, "flow.safetensors")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    run = tmp_path_factory.mktemp("theirs") / "run"
    stages.collect_demos(settings("collect_demos", run))
    return sft(run)


def test_supervised_training_learns_and_a_checkpoint_names_what_reads_it(base):
    losses = [line["loss"] for line in scalars(base.parents[3], "sft")]
    assert sum(losses[-30:]) < 0.6 * sum(losses[:30])
    facts = json.loads((base / "rlft_policy.json").read_text())
    assert (facts["kind"], facts["options"]["width"]) == ("their_policy.flow:FAMILY", 48)
    assert type(load_pretrained(base, device=torch.device("cpu"))).__name__ == "ConvFlow"


def test_supervised_training_continues_and_keeps_the_prefixes_of_what_is_frozen(base, tmp_path, caplog):
    data = f"dataset.path={base.parents[3] / 'dataset'}"
    steady = (data, "sft.warmup_steps=0", "sft.final_lr_ratio=1.0")  # its learning rate does not know its end
    whole = sft(tmp_path / "whole", *steady, "sft.steps=6")
    sft(tmp_path / "stopped", *steady, "sft.steps=3")
    stopped = sft(tmp_path / "stopped", *steady, "sft.steps=6", "resume=auto")
    assert equal(*(load_file(path / "flow.safetensors") for path in (whole, stopped)))
    stages.train_sft(settings("train_sft", tmp_path / "cached", data, f"model.path={base}", "sft.cache_prefix=true",
                              "sft.train_expert_only=true", "sft.steps=4"))  # fmt: skip
    before, after = (load_file(path / "flow.safetensors") for path in
                     (base, tmp_path / "cached" / "sft" / "checkpoints" / "last" / "pretrained_model"))  # fmt: skip
    changed = moved(before, after)
    assert changed
    assert not any(".prefix." in key for key in changed)


def test_ppo_starts_on_policy_and_goes_on_where_it_stopped(base, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        rl(tmp_path / "whole", base, "train.n_train_itr=3", "buffer.store=prefix")
    assert "buffer.store=prefix" in caplog.text
    assert max(x["update/first_max_log_ratio"] for x in scalars(tmp_path / "whole")) < 1e-4
    assert not equal(weights(tmp_path / "whole", 1), weights(tmp_path / "whole", 3))
    rl(tmp_path / "stopped", base, "train.n_train_itr=2", "buffer.store=prefix")
    rl(tmp_path / "stopped", base, "train.n_train_itr=3", "buffer.store=prefix", "resume=auto")
    assert equal(weights(tmp_path / "whole", 3), weights(tmp_path / "stopped", 3))
    last = tmp_path / "whole" / "rl" / "checkpoints" / "last" / "pretrained_model"
    # Nothing here names the kind: a checkpoint is read by what wrote it.
    words = [*OURS, f"output.dir={tmp_path / 'eval'}", f"model.path={last}", "eval.label=rl"]
    stages.evaluate(load("evaluate", words))
    again = json.loads((tmp_path / "eval" / "eval_rl.json").read_text())["per_episode"]
    assert again == json.loads((tmp_path / "whole" / "eval_rl.json").read_text())["per_episode"]


def test_stored_images_give_the_update_of_stored_prefixes(base, tmp_path):
    for store in ("prefix", "images"):
        rl(tmp_path / store, base, "train.n_train_itr=1", f"buffer.store={store}")
    ours, same = weights(tmp_path / "images", 1), weights(tmp_path / "prefix", 1)
    torch.testing.assert_close(ours, same, atol=2e-4, rtol=1e-3)  # Adam makes much of last bits; it moves them by 1e-2
    rl(tmp_path / "both", base, "train.n_train_itr=1", "model.train_vlm=true")
    changed = moved(weights(tmp_path / "prefix", 1), weights(tmp_path / "both", 1))
    assert any(".prefix." in key for key in changed)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([KIND, "model.dtype=bfloat16"], "model.dtype = bfloat16: their_policy.flow:FAMILY has no use for it"),
        ([KIND, "model.compile=true"], "model.compile = True: their_policy.flow:FAMILY has no use for it"),
        ([KIND, "model.options={widht: 3}"], r"model.options.widht: no such setting; did you mean model.options.width"),
        ([KIND, "env.cameras=[]"], r"env.cameras = \[\]: their_policy.flow:FAMILY needs at least one"),
        (["model.kind=their_polcy.flow:FAMILY"], "model.kind = 'their_polcy.flow:FAMILY': their_polcy.flow cannot be"),
        (["model.kind=json:loads"], "model.kind = json:loads: no policy family, it has no Options, stats_method"),
        (["model.kind=smal"], r"model.kind = 'smal': must be one of .*did you mean small\?"),
        (["model.kind=small", "model.options={width: 3}"], "small declares none"),
    ],
)
def test_what_a_policy_cannot_do_is_refused_with_the_settings(words, message):
    with pytest.raises(ConfigError, match=message):
        load("train_rl", ["task=toy", *words])
