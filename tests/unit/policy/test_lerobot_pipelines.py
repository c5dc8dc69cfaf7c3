"""The exported pipelines, run by lerobot itself, give what rlft gives; and what its pretrained weights expect."""

import logging

import numpy as np
import pytest
import torch
from lerobot.configs import FeatureType, NormalizationMode
from lerobot.policies.pi0.configuration_pi0 import PI0Config
from lerobot.policies.pi05.configuration_pi05 import PI05Config
from lerobot.processor import NormalizerProcessorStep, PolicyProcessorPipeline, UnnormalizerProcessorStep
from pi0_cases import CPU, S, make_observation, make_policy

from rlft.config.schema import ModelConfig
from rlft.data.normalize import NormStats
from rlft.policy.base import normalize
from rlft.policy.pi0.factory import MODES
from rlft.policy.pretrained import build_policy, family_of, load_pretrained, save_pretrained

SKEWED = np.exp(np.random.default_rng(5).normal(size=(4000, S + 3))) * [0.01, 1, 10, 100, 1, 0.1, 20] + 3.0
METHODS = ["mean_std", "quantiles", "bounds"]


def stats_of(method):
    """Statistics of long-tailed numbers, none of them centred."""
    state, action = np.split(SKEWED, [S], axis=1)
    origin = {"env_id": "Env-v1", "control_mode": "pd", "cameras": ("front", "wrist")}
    if method != "bounds":
        return NormStats.from_arrays(state, action, **origin, method=method)
    return NormStats((0.0,) * S, (1.0,) * S, (3.0, 4.0, 5.0), (1.0, 2.0, 0.5), **origin, method="bounds")


@pytest.fixture(params=[(kind, method) for kind in ("small", "small_pi05") for method in METHODS], ids="-".join)
def exported(request, tmp_path):
    """A policy, and lerobot's pipelines as read from its checkpoint."""
    kind, method = request.param
    policy = build_policy(ModelConfig(kind), stats_of(method), horizon=5, device=CPU)
    save_pretrained(policy, tmp_path)
    overrides = {"tokenizer_processor": {"tokenizer_name": str(tmp_path / "tokenizer")}}
    before = PolicyProcessorPipeline.from_pretrained(tmp_path, "policy_preprocessor.json", overrides=overrides)
    after = PolicyProcessorPipeline.from_pretrained(tmp_path, "policy_postprocessor.json")
    return policy, before, after


def only(pipeline, kind):
    (step,) = [step for step in pipeline.steps if type(step) is kind]
    return step


def test_lerobots_own_steps_normalise_state_and_action_as_rlft_does(exported):
    policy, before, after = exported
    there, back = only(before, NormalizerProcessorStep), only(after, UnnormalizerProcessorStep)
    wanted = MODES[policy.stats.method]
    assert (there.norm_map[FeatureType.STATE], back.norm_map[FeatureType.ACTION]) == (wanted, wanted)
    state, action = torch.tensor(SKEWED, dtype=torch.float32).split([S, 3], dim=1)
    stats = policy.stats
    ours = normalize(state, stats.state_mean, stats.state_std)
    theirs = there._normalize_observation({"observation.state": state}, inverse=False)["observation.state"]
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)
    ours = policy.actions_from_env(action[:, None])[:, 0]
    torch.testing.assert_close(there._normalize_action(action, inverse=False), ours, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(policy.actions_to_env(ours), back._normalize_action(ours, inverse=True))
    torch.testing.assert_close(back._normalize_action(ours, inverse=True), action, rtol=1e-4, atol=1e-4)


def test_the_prompts_are_lerobots_but_for_states_below_minus_one(exported):
    policy, before, _ = exported
    std, mean = np.array(policy.stats.state_std), np.array(policy.stats.state_mean)
    for z in ([-0.999, -0.3, 0.4, 1.7], [-1.5, -0.3, 0.4, 1.7]):
        obs = make_observation(1)
        obs.state[0] = mean + std * z
        batch = {"observation.state": torch.tensor(obs.state[0]), "task": obs.task[0]}
        batch |= {f"observation.images.{name}": torch.zeros(3, 56, 56) for name in obs.images}
        ready, inputs = before(batch), policy.prepare(obs)
        theirs, ours = (
            policy.tokenizer.tokenizer.decode(tokens[mask.bool()], skip_special_tokens=True)
            for tokens, mask in (
                (ready["observation.language.tokens"][0], ready["observation.language.attention_mask"][0]),
                (inputs.tokens[0], inputs.token_mask[0]),
            )
        )
        if policy.is_pi05 and z[0] < -1:
            assert "State: -1 89" in theirs
            theirs = theirs.replace("State: -1 89", "State: 0 89")
        else:
            for name, mine in (("tokens", inputs.tokens), ("attention_mask", inputs.token_mask)):
                assert torch.equal(ready[f"observation.language.{name}"][:, : mine.shape[1]], mine)
        assert ours == theirs
        assert ("State: 0 89 179 255;" in ours) is policy.is_pi05


@pytest.mark.parametrize(("kind", "config"), [("pi0", PI0Config), ("pi05", PI05Config)])
def test_the_default_is_what_lerobot_declares_for_the_pretrained_weights(kind, config):
    declared = config().normalization_mapping
    small = {"pi0": "small", "pi05": "small_pi05"}[kind]
    assert family_of(kind).stats_method == family_of(small).stats_method
    assert declared["STATE"] is declared["ACTION"] is MODES[family_of(kind).stats_method]
    assert declared["VISUAL"] is NormalizationMode.IDENTITY


@pytest.mark.parametrize("kind", ["small", "small_pi05"])
@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_says_which_and_is_loaded_with_its_own(kind, method, tmp_path):
    save_pretrained(build_policy(ModelConfig(kind), stats_of(method), horizon=5, device=CPU), tmp_path)
    again = load_pretrained(tmp_path, device=CPU)
    assert again.stats == stats_of(method)
    assert again.config.normalization_mapping["STATE"] is MODES[method]


def test_dimensions_that_lerobot_would_misread_are_named_when_saving(tmp_path, caplog):
    save_pretrained(make_policy(), tmp_path / "plain")
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        save_pretrained(make_policy(real_dims=[3, 4, 9], state_dims=[1, 2, 3, 4]), tmp_path / "moved")
    assert "real_dims=[3, 4, 9] are not the model's first 3" in caplog.text
    assert "state_dims=[1, 2, 3, 4] are not the model's first 4" in caplog.text
