"""The recipes load everywhere, hold the published numbers, and fit on GPUs of 80 GB."""

import pytest
import torch
from assets_at import assets_root

from rlft.config.load import load
from rlft.data.randomize.randomizer import Images
from rlft.plan.memory import HOST
from tools import recipes

NAMES = recipes.recipes()
ENTRIES = ("collect_demos", "train_sft", "train_rl", "evaluate", "plan")

# As published; the files are named in configs/recipe/. Pairs are the actor's and the critic's.
COLUMNS = ("H", "K", "rows", "batch", "epochs", "lr", "clip", "decay", "value_head", "reset")
PUBLISHED = {
    "pi0_pi_rl": (8, 4, 5120, 5120, 4, (7.91e-6, 1.55e-4), 0.2, (0.01, 0.01), [512, 256, 128], False),
    "pi05_pi_rl": (8, 4, 5120, 5120, 5, (7.91e-6, 1.55e-4), 0.2, (0.01, 0.01), [1024, 512, 256], False),
    "pi0_original": (50, 10, 512, 512, 1, (2e-5, 1e-4), 0.01, (1e-5, 1e-6), [512, 256], True),
}


@pytest.mark.parametrize("name", sorted({*NAMES, *PUBLISHED}))
def test_a_recipe_holds_the_published_numbers(name):
    cfg = recipes.settings(name)
    assert cfg.env.id == "PutOnPlateInScene25Main-v3"
    assert cfg.env.make_kwargs["obj_set"] == "train"
    assert cfg.model.kind == name.split("_")[0]
    assert (cfg.act_steps, cfg.env.max_episode_len, cfg.train.gamma, cfg.train.gae_lambda) == (5, 80, 0.99, 0.95)
    actor, critic = cfg.train.actor_optimizer, cfg.train.critic_optimizer
    decisions = cfg.env.n_steps_rollout // cfg.act_steps * cfg.env.num_envs
    found = [cfg.n_action_steps, cfg.num_steps, decisions, cfg.train.batch_size, cfg.train.update_epochs]
    found += [(actor.lr, critic.lr), cfg.train.clip_ratio, (actor.weight_decay, critic.weight_decay)]
    found += [cfg.critic.hidden_dims, cfg.env.reset_at_iteration]
    assert dict(zip(COLUMNS, found, strict=True)) == dict(zip(COLUMNS, PUBLISHED[name], strict=True))
    assert cfg.train.batch_size % cfg.train.micro_batch_size == 0


@pytest.mark.parametrize("name", NAMES)
def test_pictures_randomised_beside_a_recipe_show_nothing_of_the_test_split(name):
    """Tables 17-21, and textures 2-17, are what the vision variants test with."""
    assert recipes.settings(name).domain_randomization is None
    for words in ([f"recipe={name}", "randomization=put_on_plate"], ["randomization=put_on_plate", f"recipe={name}"]):
        cfg = load("train_rl", words)
        section, root = cfg.domain_randomization, assets_root() / "put_on_plate/more_table"
        assert cfg.env.make_kwargs["obj_set"] == "train"
        shown = {
            part: {int(n[:3]) for n in Images(part, root / part, picked.files, torch.device("cpu")).names}
            for part, picked in (("imgs", section.overlay), ("textures", section.texture))
        }
        assert shown == {"imgs": set(range(1, 17)), "textures": {1, 18, 19, 20, 21}}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("entry", ENTRIES)
def test_every_script_takes_a_recipe(name, entry):
    assert load(entry, [f"recipe={name}"]) == load("train_rl", [f"recipe={name}"])


@pytest.mark.parametrize("name", NAMES)
def test_what_is_typed_wins_over_a_recipe(name):
    typed = ["placement=one_gpu", "task=pick_cube", "train.gamma=0.5", "randomization=light"]
    for words in ([f"recipe={name}", *typed], [*typed, f"recipe={name}"]):
        cfg = load("train_rl", words)
        assert cfg.model.device == "cuda:0"
        assert cfg.buffer.device == HOST
        assert cfg.env.id == "PickCube-v1"
        assert cfg.train.gamma == 0.5
        assert cfg.domain_randomization is not None


@pytest.mark.parametrize("placement", recipes.PLACEMENTS)
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_fits_on_every_device(name, placement, monkeypatch):
    plans = list(recipes.planned(name, placement))
    assert [plan.stage for plan, _ in plans] == ["train_rl", "train_sft"]
    for plan, machine in plans:
        assert {device: machine.fits(plan, device) for device in plan.used} == dict.fromkeys(plan.used, True)
    monkeypatch.setattr(recipes, "GPU_GIB", 24.0)
    plan, machine = next(recipes.planned(name, placement))
    assert machine.overfull(plan)


def test_the_page_is_what_the_recipes_say(tmp_path, monkeypatch, capsys):
    page = recipes.PATH.read_text(encoding="utf-8")
    assert recipes.recipes_page() == page, "docs/recipes.md is stale; run: make docs"
    for name in NAMES:
        assert page.count(f"| `{name}` | three_gpus | train_rl | cpu: processes ") == 1
    monkeypatch.setattr(recipes, "PATH", tmp_path / "recipes.md")
    monkeypatch.setattr(recipes, "recipes_page", lambda: page)
    assert recipes.main(["--check"]) == 1
    assert "make docs" in capsys.readouterr().err
    assert recipes.main([]) == 0
    assert recipes.main(["--check"]) == 0
