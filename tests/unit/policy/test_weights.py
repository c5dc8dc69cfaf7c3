"""Checkpoints: what is saved comes back bit-equal, what is wrong is named; and what stands behind model.kind."""

import json
import struct
import subprocess
import sys

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from pi0_cases import CPU, H, S, make_chunk, make_observation, make_policy, make_stats
from safetensors.torch import load_file, save_file

from rlft import manifest, plugins
from rlft.config.schema import ModelConfig
from rlft.data.normalize import StatsError
from rlft.errors import ConfigError, DivergedError
from rlft.manifest import write_manifest
from rlft.policy.base import FlowPolicy
from rlft.policy.pretrained import build_policy, inspect_pretrained, load_pretrained, save_pretrained
from rlft.policy.weights_io import EMBEDDING, HEAD, WeightsError


@pytest.fixture
def policy():
    return make_policy()


@pytest.fixture
def checkpoint(policy, tmp_path):
    save_pretrained(policy, tmp_path / "pretrained_model")
    return tmp_path / "pretrained_model"


def rewrite(checkpoint, change):
    """Change the stored tensors, and make the manifest agree, so that the loader itself has to notice."""
    state = load_file(checkpoint / "model.safetensors")
    change(state)
    save_file(state, checkpoint / "model.safetensors")
    write_manifest(checkpoint)


@pytest.mark.parametrize("kind", ["small", "small_pi05"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_round_trip_is_bit_equal(kind, dtype, tmp_path):
    policy = make_policy(kind, dtype=dtype, real_dims=[3, 4, 9], state_dims=[1, 2, 3, 4])
    obs, (x, t) = make_observation(), make_chunk()
    before = policy.velocity(policy.encode(policy.prepare(obs)), x, t)[0]
    save_pretrained(policy, tmp_path)
    again = load_pretrained(tmp_path, device=CPU)
    for (name, a), (_, b) in zip(policy.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
        assert a.dtype == b.dtype, name
    assert torch.equal(before, again.velocity(again.encode(again.prepare(obs)), x, t)[0])
    assert (again.stats, again.real_dims, again.state_dims) == (policy.stats, (3, 4, 9), (1, 2, 3, 4))
    assert again.tokenizer.source == policy.tokenizer.source
    assert PreTrainedConfig.from_pretrained(tmp_path) == policy.config


def test_a_checkpoint_of_a_checkpoint_is_the_same_files(checkpoint, tmp_path):
    save_pretrained(load_pretrained(checkpoint, device=CPU), tmp_path / "again")
    manifests = (path / "manifest.json" for path in (checkpoint, tmp_path / "again"))
    first, second = (json.loads(path.read_text())["files"] for path in manifests)
    noted = "tokenizer/tokenizer_config.json"  # transformers notes in it whether the tokenizer came from a directory
    assert first.pop(noted) != second.pop(noted)
    assert first == second
    assert len(first) >= 8
    assert PreTrainedConfig.from_pretrained(checkpoint) == PreTrainedConfig.from_pretrained(tmp_path / "again")


def test_loading_draws_nothing_and_leaves_nothing_on_the_meta_device(checkpoint):
    before = torch.get_rng_state()
    policy = load_pretrained(checkpoint, device=CPU)
    assert torch.equal(before, torch.get_rng_state())
    assert not any(tensor.is_meta for tensor in [*policy.parameters(), *policy.buffers()])


@pytest.mark.parametrize("layout", ["lerobot", "hub"])
def test_both_key_layouts_load(layout, checkpoint, policy):
    def to_hub(state):
        for key in list(state):
            state[key.removeprefix("model.")] = state.pop(key)
        state[HEAD] = state.pop(EMBEDDING)

    if layout == "hub":
        rewrite(checkpoint, to_hub)
    loaded = build_policy(ModelConfig(), make_stats(), horizon=5, device=CPU, weights=checkpoint)
    wanted = policy.model.state_dict()
    if layout == "hub":
        wanted[HEAD] = wanted[EMBEDDING]
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name


def test_loaded_head_and_embedding_do_not_share_memory(checkpoint):
    rewrite(checkpoint, lambda state: state.pop("model." + EMBEDDING))
    state = load_pretrained(checkpoint, device=CPU).model.state_dict()
    assert state[HEAD].data_ptr() != state[EMBEDDING].data_ptr()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model.action_out_proj.bias"), r"1 missing: action_out_proj\.bias"),
        (lambda s: s.update({"model.extra.weight": torch.zeros(1)}), r"1 unexpected: extra\.weight"),
        (lambda s: s.update({"model.action_out_proj.bias": torch.zeros(31)}), r"bias is \[31\], wanted \[32\]"),
        (lambda s: s["model.state_proj.bias"].fill_(float("nan")), r"state_proj\.bias holds NaN"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, message, checkpoint):
    rewrite(checkpoint, change)
    with pytest.raises(WeightsError, match=message):
        load_pretrained(checkpoint, device=CPU)


def test_another_architecture_is_refused(checkpoint):
    with pytest.raises(WeightsError, match=r"14 missing: .*11 unexpected: action_time_mlp_in"):
        build_policy(ModelConfig("small_pi05"), make_stats(), horizon=5, device=CPU, weights=checkpoint)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>Sign in</html>", "web page"),
        (b"\n <HTML>404", "web page"),
        *((content, "no whole safetensors") for content in (struct.pack("<Q", 1 << 40) + b"{", None)),  # None: cut
    ],
)
def test_files_that_are_no_weights_are_named(content, message, checkpoint):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    (checkpoint / "manifest.json").unlink()
    with pytest.raises(WeightsError, match=message):
        load_pretrained(checkpoint, device=CPU)


def test_a_flipped_bit_is_refused(checkpoint):
    path = checkpoint / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.safetensors is not what was written"):
        load_pretrained(checkpoint, device=CPU)


@pytest.mark.parametrize("name", ["model.safetensors", "rlft_policy.json", "tokenizer/tokenizer.json"])
@pytest.mark.parametrize("listed", [True, False])
def test_a_missing_file_is_named(name, listed, checkpoint):
    (checkpoint / name).unlink()
    if not listed:
        write_manifest(checkpoint)
    with pytest.raises((WeightsError, ConfigError), match=name.split("/", maxsplit=1)[0]):
        load_pretrained(checkpoint, device=CPU)


def test_a_manifest_does_not_reach_outside(checkpoint):
    (checkpoint / "manifest.json").write_text(json.dumps({"files": {"../secret": {"bytes": 1, "sha256": "0"}}}))
    with pytest.raises(WeightsError, match="outside"):
        load_pretrained(checkpoint, device=CPU)


def test_what_was_just_compared_is_not_hashed_again_and_a_first_look_hashes_no_weights(checkpoint, monkeypatch):
    def hashed(what):
        names, original = [], manifest.sha256_of
        with monkeypatch.context() as patch:
            patch.setattr(manifest, "sha256_of", lambda path: (names.append(path.name), original(path))[1])
            what()
        return len(names), "model.safetensors" in names

    assert hashed(lambda: load_pretrained(checkpoint, device=CPU)) == (9, True)
    assert hashed(lambda: load_pretrained(checkpoint, device=CPU, verified=True)) == (0, False)
    assert hashed(lambda: inspect_pretrained(checkpoint)) == (6, False)


def test_broken_statistics_inside_are_refused(checkpoint):
    path = checkpoint / "rlft_policy.json"
    facts = json.loads(path.read_text())
    facts["stats"]["action_std"][1] = 0.0
    path.write_text(json.dumps(facts))
    write_manifest(checkpoint)
    with pytest.raises(StatsError, match=r"action_std .* dimensions \[1\]"):
        load_pretrained(checkpoint, device=CPU)


def test_a_checkpoint_is_not_written_over_another(checkpoint, policy):
    with pytest.raises(FileExistsError, match="not empty"):
        save_pretrained(policy, checkpoint)


def test_weights_that_are_not_finite_are_never_written(tmp_path):
    policy = make_policy()
    with torch.no_grad():
        policy.model.action_in_proj.weight[0, 0] = float("nan")
    with pytest.raises(DivergedError, match=r"1 tensors hold NaN or infinity: model\.action_in_proj\.weight"):
        save_pretrained(policy, tmp_path / "model")


META = torch.device("meta")
KINDS = plugins.BUILT_IN["policies"]


def test_settings_are_loaded_and_refused_without_torch():
    code = (
        "import sys; from rlft.config.load import load; from rlft.errors import ConfigError\n"
        "print(load('train_rl', ['policy=pi05']).env.cameras[0].height)\n"
        "try: load('train_rl', ['task=toy', 'model.small.depth=0'])\n"
        "except ConfigError as error: print(repr(str(error)))\n"
        "print([m for m in ('torch', 'lerobot', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    height, problem, modules = done.stdout.strip().splitlines()
    assert (height, modules) == ("224", "[]")
    assert "model.small.depth=0: must be at least 1" in problem


@pytest.mark.parametrize("kind", KINDS)
def test_planning_sees_every_kind_as_shapes_alone(kind):
    policy = build_policy(ModelConfig(kind=kind, dtype="bfloat16"), make_stats(), horizon=H, device=META)
    assert isinstance(policy, FlowPolicy)
    assert (policy.kind, policy.dtype, policy.device) == (kind, "bfloat16", META)
    length = policy.expected_prompt_length("push the cube")
    assert length == (16 + 4 * S if kind.endswith("pi05") else 6)
    prefix = policy.encode(policy.blank_inputs(2, length))
    assert prefix.tokens == 2 * (policy.image_size // 14) ** 2 + length
    with torch.no_grad():
        velocity, features = policy.velocity(prefix, torch.zeros(4, H, 32, device=META), torch.ones(4, device=META))
    assert (velocity.shape, features.shape) == ((4, H, 32), (4, H, policy.feature_dim))


def test_a_checkpoint_is_seen_as_shapes_without_its_weights(tmp_path):
    policy = make_policy(small={"depth": 1})
    save_pretrained(policy, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "manifest.json").unlink()
    shapes = load_pretrained(tmp_path, device=META)
    assert {k: v.shape for k, v in shapes.state_dict().items()} == {k: v.shape for k, v in policy.state_dict().items()}


def test_the_longest_prompt_is_known_to_the_next_who_estimates_memory(tmp_path):
    policy = make_policy()
    policy.prompt_length = 23
    save_pretrained(policy, tmp_path)
    assert load_pretrained(tmp_path, device=CPU).expected_prompt_length("push") == 23


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, r"format 1; this version reads 2\. Take the version of rlft that wrote it"),
        ({"format": None}, "format None"),
        ({"horizon": "gone"}, r"the fields \['horizon'\] are missing"),
        ({"kind": "nobody.knows:FAMILY"}, "model.kind = 'nobody.knows:FAMILY': nobody.knows cannot be imported"),
    ],
)
def test_a_description_that_cannot_be_read_is_said(change, message, tmp_path):
    save_pretrained(make_policy(), tmp_path)
    facts = json.loads((tmp_path / "rlft_policy.json").read_text()) | change
    facts = {key: value for key, value in facts.items() if value != "gone"}
    (tmp_path / "rlft_policy.json").write_text(json.dumps(facts))
    write_manifest(tmp_path)
    for read in (inspect_pretrained, lambda path: load_pretrained(path, device=CPU)):
        with pytest.raises((WeightsError, ConfigError), match=message):
            read(tmp_path)
