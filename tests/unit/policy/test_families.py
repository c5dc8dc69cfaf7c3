"""What stands behind model.kind: found without torch, built as shapes alone, found again from a checkpoint."""

import json
import subprocess
import sys

import pytest
import torch
from pi0_cases import CPU, H, S, make_policy, make_stats

from rlft import plugins
from rlft.config.schema import ModelConfig
from rlft.errors import ConfigError
from rlft.manifest import write_manifest
from rlft.policy.base import FlowPolicy
from rlft.policy.pretrained import build_policy, inspect_pretrained, load_pretrained, save_pretrained
from rlft.policy.weights_io import WeightsError

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
