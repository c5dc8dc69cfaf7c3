"""Writes docs/recipes.md from configs/recipe/: ``python -m tools.recipes [--check]``."""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlft.config.groups import CONFIG_DIR
from rlft.config.load import load
from rlft.config.schema import RunConfig
from rlft.plan.machine import GIB, RESERVE, Machine, measure
from rlft.plan.memory import Assumptions, MemoryPlan
from tools.pages import write_or_check

PATH = Path(__file__).resolve().parents[1] / "docs" / "recipes.md"
PLACEMENTS = ("three_gpus", "one_gpu")
GPU_GIB = 79.0  # what cards sold as 80 GB have at least: an H100 has 79.6
HOST_GIB = 128.0
CORES = 16
NOT_COMPARED = ("name", "placement")

HEAD = """\
# Recipes

Written from `configs/recipe/` by `make docs`; do not edit. A recipe sets task, policy, placement and algorithm at once.
Every script takes it, and whatever is typed beside it wins over it (`placement=one_gpu`):

```
.venv/bin/python scripts/plan.py          recipe={first} --gpu-gib {gpu:g} --host-gib {host:g}
.venv/bin/python scripts/collect_demos.py recipe={first} name=main
.venv/bin/python scripts/train_sft.py     recipe={first} name=main model.path=BASE model.tokenizer_path=TOKENIZER
.venv/bin/python scripts/train_rl.py      recipe={first} name=main model.path=SFT
.venv/bin/python scripts/evaluate.py      recipe={first} name=main model.path=RL
```

BASE is a lerobot checkpoint (`lerobot/pi0_base`, `lerobot/pi05_base`), TOKENIZER PaliGemma's; SFT is
`outputs/main/sft/checkpoints/last/pretrained_model`, RL the same below `rl`. The assets come from
`scripts/download_assets.py` ([assets](assets.md)).

None of these runs was made here: they need GPUs and weights that this project's machines do not have. What is checked
is that each loads, that its numbers are the published ones, and that its plan fits.
"""

TAIL = """\
## What is not as published

- π_RL's public file uses flow noise. Its best published results are with its flow SDE (π0 78.8 %, π0.5 90.9 %); with
  flow noise they are 77.8 % and 89.7 % (RLinf/RLinf:docs/source-en/rst_source/examples/embodied/pi0.rst).
  `exploration.method=flow_sde_single` is the nearest to theirs here.
- Its log-probability is averaged over the chain, and π0's ratio is taken for each number of a chunk; here both are the
  chunk's joint probability (`exploration.logprob=sum`), so that the same clip range is tighter.
- Both codes average the value's features over all denoise steps and draw noise in numbers whose density they leave
  out; `critic.value_at=first` and `exploration.density=masked` are unbiased there, or cheaper
  ([the algorithm](algorithm.md)). Only `pi0_original` keeps `all` and `executed`, which its averaged log-probability is
  made of. `train.target_kl` stops an iteration's updates at 0.2 joint nats.
- It bootstraps past every end of an episode, successes too; here only past the clock's. It also clips the loss of very
  unlikely actions (`clip_ratio_c`) and uses a Huber loss for the value; neither is a setting here.
- Its π0.5 sees no state and its value head reads the prefix; here π0.5 has the state in its prompt and the value head
  reads the expert's features.
- It starts from checkpoints of its own, which are openpi's files. SFT here has the first π0-RL code's settings.
- The first π0-RL code divides the log-probability by the chain's length too (`exploration.logprob=mean`), scales its
  rewards by a running std, and restarts its learning rate's cosine every 100 iterations; the last two are no settings
  here. Its own SFT has chunks of 10 steps and 4 denoise steps, its PPO 50 and 10; one recipe has one length, PPO's.
- No recipe randomises images: π_RL's file has none, the first code's never ran. `randomization=put_on_plate` beside
  any takes the training split's tables and textures only ([domain randomisation](domain_randomization.md)).
"""


def recipes() -> list[str]:
    """The names of all recipes."""
    return sorted(path.stem for path in (CONFIG_DIR / "recipe").glob("*.yaml"))


def planned(name: str, placement: str) -> Iterator[tuple[MemoryPlan, Machine]]:
    """Both trainings of a recipe, on GPUs of 80 GB.

    Args:
        name: of the recipe.
        placement: a choice of the group ``placement``.
    """
    cfg = settings(name, placement)
    machine = Machine(measure(cfg, gpu_gib=GPU_GIB, host_gib=HOST_GIB), Assumptions(cores=CORES))
    for stage in ("train_rl", "train_sft"):
        yield machine.plan(stage, cfg), machine


def settings(name: str, placement: str = PLACEMENTS[0]) -> RunConfig:
    """A recipe's settings, as train_rl loads them."""
    return load("train_rl", [f"recipe={name}", f"placement={placement}"])


def recipes_page() -> str:
    """The whole page, Markdown."""
    parts = [HEAD.format(first=recipes()[0], gpu=GPU_GIB, host=HOST_GIB), "## Settings that are not the defaults\n"]
    parts += [_settings_table(), "## Memory\n", _memory_text(), _memory_table(), TAIL]
    return "\n".join(parts)


def _settings_table() -> str:
    default = dict(_leaves(asdict(RunConfig()), ""))
    columns = {name: dict(_leaves(asdict(settings(name)), "")) for name in recipes()}
    keys = list(dict.fromkeys(key for leaves in columns.values() for key in leaves))
    rows, common = [], []
    for key in keys:
        found = [leaves.get(key) for leaves in columns.values()]
        if key in NOT_COMPARED or all(value == default.get(key) for value in found):
            continue
        texts = [_text(value) for value in found]
        if len(set(texts)) == 1:
            common.append(f"`{key}` {texts[0]}")
        else:
            rows.append([f"`{key}`", *texts])
    return _table([["setting", *columns], *rows]) + f"\nIn all of them: {'; '.join(common)}.\n"


def _memory_text() -> str:
    return (
        f"GiB on GPUs of {GPU_GIB:g} GiB and a host of {HOST_GIB:g}, of which {RESERVE:.0%} stay free "
        "([planning](planning.md)).\nWhat simulation takes on its GPU was never measured; `room` is what is left there "
        "for it.\n"
    )


def _memory_table() -> str:
    rows = [["recipe", "placement", "stage", "device: what is there GiB", "verdict"]]
    for name in recipes():
        for placement in PLACEMENTS:
            for plan, machine in planned(name, placement):
                devices = "; ".join(_device_text(plan, machine, device) for device in plan.used)
                full = [device for device in plan.used if not machine.fits(plan, device)]
                verdict = f"NO: {', '.join(full)}" if full else "fits"
                rows.append([f"`{name}`", placement, plan.stage, devices, verdict])
    return _table(rows)


def _device_text(plan: MemoryPlan, machine: Machine, device: str) -> str:
    roles = ", ".join(plan.roles[device]) or "processes"
    text = f"{device}: {roles} {plan.total(device) / GIB:.1f}"
    if device not in plan.unknown:
        return text
    room = (1.0 - RESERVE) * (machine.capacity[device] or 0) - plan.total(device)
    return f"{text} (room {room / GIB:.1f})"


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return ", ".join(str(item["name"]) for item in value)
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(rows: list[list[str]]) -> str:
    head, *rest = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "| " + " | ".join("---" for _ in rows[0]) + " |", *rest]) + "\n"


def main(argv: list[str]) -> int:
    """Write the page, or with ``--check`` compare it with the file; 1 where they differ."""
    return write_or_check(PATH, recipes_page(), check="--check" in argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
