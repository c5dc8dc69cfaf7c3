"""docs/put_on_plate.md says what the code does: counts, numbers, thresholds, commands."""

import doctest
import re
from pathlib import Path

from rlft.config.load import load
from rlft_tasks.put_on_plate import terms, variants
from rlft_tasks.put_on_plate.configurations import Numbering
from rlft_tasks.put_on_plate.variants import OBJECTS, PREFIX, SPLITS, TABLES, UNSEEN, VARIANTS

PAGE = (Path(__file__).parents[3] / "docs" / "put_on_plate.md").read_text()
TEXT = " ".join(PAGE.split())


def rows():
    """Id -> the cells beside it, from the page's table."""
    found = {}
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        names = re.findall(r"`(\w+-v\d)`", cells[0])
        if line.startswith("| `") and names:
            found |= {f"{PREFIX}{name}": cells[1:] for name in names}
    return found


def test_the_table_lists_every_id_with_its_counts():
    assert set(rows()) == set(VARIANTS)
    for env_id, (_, *counts) in rows().items():
        assert counts == [f"{len(Numbering(env_id, split)):,}" for split in SPLITS], env_id


def test_what_varies_is_what_the_code_varies():
    said = {env_id.removeprefix(PREFIX): cells[0] for env_id, cells in rows().items()}
    unseen = UNSEEN.of("test")
    assert f"one of {len(unseen)} textures" in said["VisionTexture03-v1"] == said["VisionTexture05-v1"]
    assert f"one of {len(unseen)} phrasings" in said["Instruct-v1"]
    assert f"plates {unseen[0]}–{unseen[-1]}" in said["Plate-v1"]
    assert f"all {len(VARIANTS[f'{PREFIX}MultiPlate-v1'].tables.of('train'))} tables" in said["MultiPlate-v1"]
    assert f"{Numbering(f'{PREFIX}EEPose-v1', 'test').sizes['extra']:,} other poses" in said["EEPose-v1"]
    assert f"after {variants.MOVES_AFTER} steps" in said["PositionChangeTo-v1"]
    for name, ratio in (("VisionTexture03-v1", 0.3), ("VisionWhole05-v1", 0.5)):
        assert VARIANTS[f"{PREFIX}{name}"].texture_ratio == ratio
    for split in ("train", "test"):
        objects, tables = OBJECTS.of(split), TABLES.of(split)
        assert f"objects {objects[0]}–{objects[-1]}" in TEXT
        assert f"tables {tables[0]}–{tables[-1]}" in TEXT
    counts = [len(things.of("all")) for things in (OBJECTS, UNSEEN, TABLES)]
    assert "{} objects, {} plates, {} tables".format(*counts) in TEXT


def test_the_worked_example_runs():
    block = next(b for b in re.findall(r"```\n(.*?)```", PAGE, flags=re.DOTALL) if ">>>" in b)
    example = doctest.DocTestParser().get_doctest(block, {}, "page", None, 0)
    assert len(example.examples) == 4
    assert doctest.DocTestRunner().run(example).failed == 0


def test_thresholds_are_those_of_the_code():
    assert f"longest half edge and {100 * terms.SIDEWAYS:g} cm" in TEXT
    assert f"at most {100 * terms.ABOVE:g} cm of air" in TEXT
    assert f"more than {terms.TOUCH:g} N" in TEXT
    assert f"after {terms.HELD_STEPS} steps in a row" in TEXT
    assert f"An episode has {variants.MAX_EPISODE_STEPS} steps" in TEXT


def test_the_commands_can_be_typed():
    for script, words in re.findall(r"^scripts/(\w+)\.py (.*)$", PAGE, flags=re.MULTILINE):
        cfg = load(script, [word for word in words.split() if not word.startswith("model.path")])
        assert cfg.env.id.startswith(PREFIX)
        assert cfg.env.cameras[0].name == "3rd_view_camera"
    sparse = load("train_rl", ["task=put_on_plate", *re.findall(r"`(env\.reward\.\S+=\S+)`", PAGE)])
    assert (sparse.env.reward.mode, sparse.env.reward.success_bonus) == ("sparse", 1.0)
