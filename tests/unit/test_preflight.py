"""What is wrong with devices, checkpoint, statistics or task is said before a simulator is built."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlft import cli
from rlft.config.load import load
from rlft.config.schema import ModelConfig
from rlft.data.normalize import NormStats
from rlft.manifest import write_manifest
from rlft.policy.pretrained import save_pretrained
from rlft.run import stages
from rlft.run.assembly import envs
from rlft.run.assembly.policy import fresh_policy

STATS = NormStats(
    (0.0,) * 2, (1.0,) * 2, (0.0,) * 2, (1.0,) * 2, "ToyReach-v0", "pd_ee_delta_pos", ("top",), ("tcp_pos",)
)
RUN = {"train_rl": stages.train_rl, "evaluate": stages.evaluate}
SUITE = "eval.suite={name: s, members: [{name: main, group: in_distribution}]}"
MANISKILL = ["env.simulator=maniskill", "env.id=PushCube-v1"]


class SimulatorBuiltError(Exception):
    """Raised in place of building one: every check has passed."""


@pytest.fixture(autouse=True)
def no_simulator(monkeypatch):
    def refuse(settings):
        raise SimulatorBuiltError

    monkeypatch.setattr(envs, "make_vec_env", refuse)


@pytest.fixture
def checkpoint(tmp_path):
    save_pretrained(fresh_policy(load("train_rl", ["task=toy"]), STATS, torch.device("cpu")), tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def say(entry, tmp_path, capsys, *words):
    """The exit status of the command and what it says."""
    status = cli.main(entry, RUN[entry], None, ["task=toy", f"output.dir={tmp_path / 'run'}", *words])
    return status, capsys.readouterr().err


@pytest.mark.parametrize("entry", RUN)
def test_what_is_right_reaches_the_simulator(entry, checkpoint, tmp_path, capsys):
    with pytest.raises(SimulatorBuiltError):
        say(entry, tmp_path, capsys, f"model.path={checkpoint}")
    with pytest.raises(SimulatorBuiltError):
        say(entry, tmp_path, capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.device=cuda:7"], "model.device = cuda:7"),
        (["n_action_steps=10"], "predicts H=5"),
        (["env.cameras=[{name: side}]"], "cameras is ('top',) in the statistics and ('side',) here"),
        (["env.state_terms=[tcp_pos, goal_pos]"], "state_terms is ('tcp_pos',)"),
        (["env.control_mode=pd_joint_pos"], "control_mode is 'pd_ee_delta_pos'"),
        (["env.id=ToyPush-v0"], "env_id is 'ToyReach-v0' in the statistics and 'ToyPush-v0' here"),
        (["env.id=ToyRech-v0", "allow_stats_mismatch=true"], "did you mean ToyReach-v0?"),
        (["dataset_stats=nowhere.json"], "dataset_stats=nowhere.json: cannot be read"),
        (["dataset.stats_method=quantiles"], "stats_method = quantiles, but the statistics in use are mean_std"),
    ],
)
@pytest.mark.parametrize("entry", RUN)
def test_settings_that_do_not_fit_the_checkpoint(entry, words, message, checkpoint, tmp_path, capsys):
    status, said = say(entry, tmp_path, capsys, f"model.path={checkpoint}", *words)
    assert message in said
    assert status == 2


def cut_description(path):
    (path / "rlft_policy.json").write_text('{"format"')
    write_manifest(path)


def change_description(path):
    text = (path / "rlft_policy.json").read_text()
    (path / "rlft_policy.json").write_text(text.replace('"horizon": ', '"horizon":9'))


def narrow_statistics(path):
    facts = json.loads((path / "rlft_policy.json").read_text())
    facts["stats"]["state_std"][1] = 1e-5
    (path / "rlft_policy.json").write_text(json.dumps(facts))
    write_manifest(path)


def cut_weights(path):
    content = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(content[:-100])


def other_weights(path):
    state = load_file(path / "model.safetensors")
    state["model.action_out_proj.bias"] = torch.zeros(31)
    save_file(state, path / "model.safetensors")
    write_manifest(path)


def no_tokenizer(path):
    (path / "tokenizer" / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_description, "rlft_policy.json: no readable JSON"),
        (change_description, "rlft_policy.json is not what was written"),
        (narrow_statistics, "state_std is below 0.0001 x max(1, |mean|) in dimensions [1]"),
        (cut_weights, "model.safetensors has "),
        (other_weights, "action_out_proj.bias is [31], wanted [32]"),
        (no_tokenizer, "tokenizer.json is listed in manifest.json, but is missing"),
    ],
)
@pytest.mark.parametrize("suite", [False, True])
def test_a_damaged_checkpoint(suite, damage, message, checkpoint, tmp_path, capsys):
    damage(checkpoint)
    words = [f"model.path={checkpoint}"]
    status, said = say("evaluate", tmp_path, capsys, *words, *([SUITE] if suite else []))
    assert message in said
    assert status == 2
    assert say("train_rl", tmp_path, capsys, *words) == (2, said.replace("evaluate:", "train_rl:"))


@pytest.mark.parametrize("entry", RUN)
def test_a_wrong_path(entry, tmp_path, capsys):
    status, said = say(entry, tmp_path, capsys, f"model.path={tmp_path}/nowhere")
    assert f"{tmp_path}/nowhere is no checkpoint" in said
    assert status == 2


@pytest.mark.parametrize(("entry", "words"), [("train_rl", []), ("evaluate", []), ("evaluate", [SUITE])])
def test_videos_that_nothing_can_encode(entry, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    status, said = say(entry, tmp_path, capsys, "model.path=nowhere", *words)
    assert "this needs av, which is not installed; install it with: pip install 'rlft-flow[report]'" in said
    assert status == 1


@pytest.mark.parametrize(
    ("entry", "hidden", "extra", "words"),
    [
        ("train_rl", "mani_skill", "maniskill", MANISKILL),
        ("evaluate", "sapien", "maniskill", MANISKILL),
        ("collect_demos", "mani_skill", "maniskill", MANISKILL),
        ("train_rl", "wandb", "wandb", ["wandb.project=x"]),
        ("train_sft", "wandb", "wandb", ["wandb.project=x"]),
    ],
)
def test_a_package_that_is_not_installed(entry, hidden, extra, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, hidden, None)
    argv = ["task=toy", f"output.dir={tmp_path / 'run'}", *words]
    assert cli.main(entry, vars(stages)[entry], None, argv) == 1
    assert f"this needs {hidden}, which is not installed; install it with: pip install 'rlft-flow[{extra}]'" in (
        capsys.readouterr().err
    )


def test_a_wrong_device_is_told_before_a_wrong_checkpoint(tmp_path, capsys):
    for entry in RUN:
        status, said = say(entry, tmp_path, capsys, "model.path=nowhere", "sim.device=cuda:7", "sim.backend=gpu")
        assert (status, "sim.device = cuda:7" in said, "nowhere" in said) == (2, True, False)


@pytest.mark.parametrize("entry", RUN)
@pytest.mark.parametrize("simulator", ["toy", pytest.param("maniskill", marks=pytest.mark.simulator)])
def test_a_wrong_task(entry, simulator, tmp_path, capsys):
    wrong, right = {"toy": ("ToyRech-v0", "ToyReach-v0"), "maniskill": ("PushCub-v1", "PushCube-v1")}[simulator]
    status, said = say(entry, tmp_path, capsys, f"env.simulator={simulator}", f"env.id={wrong}")
    assert f"env.id = '{wrong}' is not known; did you mean {right}" in said
    assert status == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.path=nowhere"], "nowhere/model.safetensors: there is no such file"),
        (["model.path=nowhere", "model.device=cuda:7"], "model.device = cuda:7"),
        (["model.path={checkpoint}", "model.kind=small_pi05"], "unexpected: action_time_mlp_in"),
    ],
)
def test_sft_looks_at_its_base_before_it_reads_a_dataset(words, message, checkpoint, tmp_path, capsys):
    argv = ["task=toy", f"output.dir={tmp_path}", *(word.format(checkpoint=checkpoint) for word in words)]
    assert cli.main("train_sft", stages.train_sft, None, argv) == 2  # there is no dataset
    assert message in capsys.readouterr().err


def test_real_sizes_are_checked_without_weights_in_memory():
    from rlft.policy.pi0.factory import core_shapes

    shapes = core_shapes(ModelConfig("pi05"))
    assert all(tensor.is_meta for tensor in shapes.values())
    assert sum(tensor.numel() for tensor in shapes.values()) > 3e9


def test_settings_stay_as_they_were_loaded(checkpoint, tmp_path):
    words = ["task=toy", f"output.dir={tmp_path / 'run'}", f"model.path={checkpoint}"]
    for entry, run in RUN.items():
        cfg = load(entry, words)
        with pytest.raises(SimulatorBuiltError):
            run(cfg)
        assert cfg == load(entry, words)
