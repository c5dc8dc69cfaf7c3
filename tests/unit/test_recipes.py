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

# As published; the files are named in configs/recipe/.
PUBLISHED = {
    "pi0_pi_rl": {
        "H": 8,
        "K": 4,
        "rows": 5120,
        "batch": 5120,
        "epochs": 4,
        "lr": (7.91e-6, 1.55e-4),
        "clip": 0.2,
        "decay": (0.01, 0.01),
        "value_head": [512, 256, 128],
        "reset": False,
    },
    "pi05_pi_rl": {
        "H": 8,
        "K": 4,
        "rows": 5120,
        "batch": 5120,
        "epochs": 5,
        "lr": (7.91e-6, 1.55e-4),
        "clip": 0.2,
        "decay": (0.01, 0.01),
        "value_head": [1024, 512, 256],
        "reset": False,
    },
    "pi0_original": {
        "H": 50,
        "K": 10,
        "rows": 512,
        "batch": 512,
        "epochs": 1,
        "lr": (2e-5, 1e-4),
        "clip": 0.01,
        "decay": (1e-5, 1e-6),
        "value_head": [512, 256],
        "reset": True,
    },
}


def test_every_recipe_has_published_numbers():
    assert set(NAMES) == set(PUBLISHED)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_holds_the_published_numbers(name):
    cfg = recipes.settings(name)
    assert cfg.env.id == "PutOnPlateInScene25Main-v3"
    assert cfg.env.make_kwargs["obj_set"] == "train"
    assert cfg.model.kind == name.split("_")[0]
    assert (cfg.act_steps, cfg.env.max_episode_len, cfg.train.gamma, cfg.train.gae_lambda) == (5, 80, 0.99, 0.95)
    assert {
        "H": cfg.n_action_steps,
        "K": cfg.num_steps,
        "rows": cfg.env.n_steps_rollout // cfg.act_steps * cfg.env.num_envs,
        "batch": cfg.train.batch_size,
        "epochs": cfg.train.update_epochs,
        "lr": (cfg.train.actor_optimizer.lr, cfg.train.critic_optimizer.lr),
        "clip": cfg.train.clip_ratio,
        "decay": (cfg.train.actor_optimizer.weight_decay, cfg.train.critic_optimizer.weight_decay),
        "value_head": cfg.critic.hidden_dims,
        "reset": cfg.env.reset_at_iteration,
    } == PUBLISHED[name]
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
