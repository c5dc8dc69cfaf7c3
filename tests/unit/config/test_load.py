import resource
import subprocess
import sys
from dataclasses import asdict

import pytest

from rlft.config.compose import compose_tree
from rlft.config.groups import CONFIG_DIR, takes_a_task, task_serving
from rlft.config.load import dump, load
from rlft.errors import ConfigError

ROOT = CONFIG_DIR.parent
ENTRIES = ("collect_demos", "train_sft", "train_rl", "evaluate", "report", "plan")
AS_IT_STANDS = (
    "wandb=null sim.device=cpu model.device=cpu buffer.device=cpu act_steps=2 n_action_steps=5 num_steps=2 "
    "num_steps_eval=2 env.n_steps_rollout=20 env.max_episode_len=20 env.num_envs=4 train.batch_size=16 "
    "train.skip_initial_eval=true train.n_train_itr=2"
)


def problems_of(*overrides: str, **kwargs) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load("train_rl", overrides, **kwargs)
    return caught.value.problems


def only_problem(*overrides: str, **kwargs) -> str:
    problems = problems_of(*overrides, **kwargs)
    assert len(problems) == 1, problems
    return problems[0]


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_loads_with_its_defaults(entry):
    assert load(entry).env.id == "PushCube-v1"


@pytest.mark.parametrize("file", sorted(CONFIG_DIR.glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}={p.stem}")
def test_every_group_file_loads_with_the_defaults_of_the_rest(file):
    entry = "evaluate" if file.parent.name == "suite" else "train_rl"  # a suite is nothing that training could run
    load(entry, [f"{file.parent.name}={file.stem}"])


@pytest.mark.parametrize("algo", [p.stem for p in (CONFIG_DIR / "algo").glob("*.yaml")])
@pytest.mark.parametrize("task", [p.stem for p in (CONFIG_DIR / "task").glob("*.yaml")])
def test_every_algorithm_fits_every_task(algo, task):
    load("train_rl", [f"algo={algo}", f"task={task}"])


def test_the_command_of_the_original_project_loads_as_it_stands():
    cfg = load("train_rl", AS_IT_STANDS.split())
    assert (cfg.act_steps, cfg.n_action_steps, cfg.num_steps, cfg.num_steps_eval) == (2, 5, 2, 2)
    assert (cfg.env.n_steps_rollout, cfg.env.max_episode_len, cfg.env.num_envs) == (20, 20, 4)
    assert (cfg.train.batch_size, cfg.train.skip_initial_eval, cfg.train.n_train_itr) == (16, True, 2)
    for device in ("cpu", "cuda:0"):
        cfg = load("train_rl", AS_IT_STANDS.replace("=cpu", f"={device}").split())
        assert (cfg.wandb, cfg.sim.device, cfg.model.device, cfg.buffer.device) == (None, *[device] * 3)


def test_dump_and_load_give_the_same_settings(tmp_path):
    kwargs = "env.make_kwargs={a: [1, 2.5], b: {c: null}}"
    cfg = load("train_rl", ["task=pick_cube", "wandb.project=x", kwargs, "seed=7"])
    (tmp_path / "config.yaml").write_text(dump(cfg))
    again = load("train_rl", config_dir=tmp_path, config_name="config")
    assert asdict(again) == asdict(cfg)
    assert dump(again) == dump(cfg)


def test_ones_own_directory_wins_and_reaches_the_shipped_files(tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults: [train_rl, _self_]\ntrain: {gamma: 0.5}\n")
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text("# @package _global_\nenv: {simulator: toy, id: Mine-v0}\n")
    cfg = load("train_rl", ["task=mine", "train.gae_lambda=0.9"], tmp_path, "mine")
    assert (cfg.env.id, cfg.train.gamma, cfg.train.gae_lambda, cfg.train.clip_ratio) == ("Mine-v0", 0.5, 0.9, 0.2)


def test_an_override_wins_over_a_file_and_a_file_over_the_schema():
    assert load("train_rl", ["algo=original"]).train.clip_ratio == 0.01
    assert load("train_rl", ["train.clip_ratio=0.3", "algo=original"]).train.clip_ratio == 0.3


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (["policy=small"], (56, 56)),
        (["policy=small", "model.small.image_size=112"], (112, 112)),
        (["policy=pi0"], (224, 224)),
        (["policy=pi0", "env.cameras.0.aspect=2"], (112, 224)),
        (["policy=pi0", "env.cameras.0.aspect=0.5"], (224, 112)),
    ],
)
def test_a_camera_without_a_size_gets_the_models_in_loading(words, size):
    camera = load("train_rl", words).env.cameras[0]
    assert (camera.height, camera.width) == size


def test_lists_are_indexed_and_replaced():
    cfg = load("train_rl", ["env.cameras.0.height=112"])
    assert (cfg.env.cameras[0].height, cfg.env.cameras[0].width, cfg.env.cameras[0].fov) == (112, 56, 1.0)
    assert load("train_rl", ["env.cameras=[]"]).env.cameras == []
    assert "numbered from 0" in only_problem("env.cameras.1.height=112")


def test_a_section_that_is_off_is_switched_on_by_a_setting_below_it():
    assert load("train_rl").wandb is None
    assert load("train_rl", ["wandb.entity=me"]).wandb.project == "rlft"
    assert load("train_rl", ["+wandb.entity=me"]).wandb.entity == "me"


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("env.num_env=4", "env.num_envs?"),
        ("trian.gamma=0.9", "train?"),
        ("gamma=0.9", "train.gamma?"),
        ("env.cameras=[{name: a, hight: 3}]", "env.cameras[].height?"),
        ("num_envs=3", "env.num_envs or eval.num_envs?"),
    ],
)
def test_a_misspelled_key_names_the_nearest(override, meant):
    assert only_problem(override).endswith(f"did you mean {meant}")


def test_all_problems_are_reported_at_once():
    text = "\n".join(problems_of("env.num_env=4", "env.num_envs=abc", "train.gamma=2", "seed=-1"))
    assert all(key in text for key in ("env.num_env:", "env.num_envs = 'abc'", "train.gamma = 2", "seed = -1"))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("env.num_envs=abc", "env.num_envs = 'abc': expected whole number, >= 1"),
        ("env.num_envs=-1", "env.num_envs = -1: must be >= 1"),
        ("env.num_envs=0", "env.num_envs = 0: must be >= 1"),
        ("env.num_envs=4.5", "env.num_envs = 4.5: expected whole number, >= 1"),
        ("env.num_envs=true", "env.num_envs = True: expected whole number, >= 1"),
        ("train.gamma=1.5", "train.gamma = 1.5: must be > 0 and <= 1"),
        ("train.gamma=nan", "train.gamma = nan: expected number, > 0 and <= 1"),
        ("train.clip_ratio=1", "train.clip_ratio = 1: must be > 0 and < 1"),
        ("train.skip_initial_eval=1", "train.skip_initial_eval = 1: expected true or false"),
        ("sft.optimizer.betas=[0.9]", "sft.optimizer.betas = [0.9]: must be exactly 2 entries"),
        ("critic.hidden_dims=[]", "critic.hidden_dims = []: must be at least 1 entries"),
        ("critic.hidden_dims=[a]", "critic.hidden_dims.0 = 'a': expected whole number"),
        ("name=5", "name = 5: expected text; quote it to make it text: name=\"'5'\""),
        ("env.id=null", "env.id = null: expected text; this setting has no null"),
        ("env=3", "env = 3: env is a section"),
        ("env.id.x=3", "env.id.x: env.id is a single setting, not a section"),
        ("exploration.logprob=main", "exploration.logprob = 'main': must be one of sum, mean; did you mean mean?"),
        ("algo=null", "algo=null: no such choice"),
        ("algo=pp", "algo=pp: no such choice; algo is one of grpo, original, pi_rl, ppo"),
        ("seed=1,2", "'seed=1,2': several values; add -m to run each"),
        ("~seed", "'~seed': seed has no null; set seed=VALUE, or leave it out"),
        ("~env.make_kwargs.no", "~env.make_kwargs.no: there is no such setting"),
        ("~task", "~task: no such choice; task is one of"),
        ("env.simulator=toi", "env.simulator = 'toi': must be one of gymnasium, lerobot, maniskill, toy, package.mod"),
        ("train.objective=gppo", "train.objective = 'gppo': must be one of grpo, ppo"),
        ("name", "'name': not of the form key=value"),
        ("name='${name}'", "name = '${name}': cannot be resolved: Recursive interpolation"),
    ],
)
def test_a_bad_value_is_told_with_field_value_and_what_is_allowed(override, expected):
    assert only_problem(override).startswith(expected)


def test_a_group_of_which_a_run_needs_no_file_may_be_null():
    assert load("train_sft", [], config_name="put_on_plate_cpu").domain_randomization is not None
    assert load("train_sft", ["randomization=null"], config_name="put_on_plate_cpu").domain_randomization is None
    assert load("train_sft", ["randomization=null", "recipe=null"]) == load("train_sft", [])


def test_a_whole_number_may_be_written_as_1e1():
    num_envs = load("train_rl", ["env.num_envs=1e1"]).env.num_envs
    assert (num_envs, type(num_envs)) == (10, int)


@pytest.mark.parametrize("override", ["name=None", "wandb=None", "train.target_kl=none", "env.make_kwargs={a: [None]}"])
def test_the_text_none_is_told_to_be_null(override):
    assert "this is text" in only_problem(override)
    assert "null" in only_problem(override)


def test_all_unresolved_interpolations_are_listed(monkeypatch):
    monkeypatch.delenv("RLFT_NO_SUCH_A", raising=False)
    problems = problems_of("name=${oc.env:RLFT_NO_SUCH_A}", "output.dir=${oc.env:RLFT_NO_SUCH_B}", "env.robot=${a.b}")
    assert sorted(p.split(" = ")[0] for p in problems) == ["env.robot", "name", "output.dir"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("defaults: [train_rl, _self_]\nmodel:\n  path: ???\n", "model.path"), ("env: {simulator: toy}\n", "env.id")],
)
def test_what_is_missing_is_told_once(text, said, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    assert only_problem(config_dir=tmp_path, config_name="mine") == f"{said} = '???': must be given"


@pytest.mark.parametrize(
    ("env_id", "name"),
    [
        ("PushCube-v1", "PushCube-v1_seed2"),
        ("package.module:Id", "package.module_Id_seed2"),
        ("gym_aloha/AlohaInsertion-v0", "gym_aloha_AlohaInsertion-v0_seed2"),
        ("_own:π", "own_seed2"),
        ("x" * 200, "x" * 80 + "_seed2"),
    ],
)
def test_a_run_without_a_name_gets_one_that_can_name_a_directory(env_id, name):
    assert load("train_rl", ["task=toy", f"env.id='{env_id}'", "seed=2"]).name == name


def test_an_environment_variable_is_read(monkeypatch):
    monkeypatch.setenv("RLFT_TEST_NAME", "from-env")
    assert load("train_rl", ["name=${oc.env:RLFT_TEST_NAME}"]).name == "from-env"


@pytest.mark.parametrize(
    "override", ["+env.make_kwargs._target_=os.system", "domain_randomization={a: [{_target_: x}]}", "_target_=x.Y"]
)
def test_code_naming_keys_are_refused(override):
    assert "_target_ keys are refused" in only_problem(override)


def test_old_keys_with_an_equivalent_are_accepted(tmp_path):
    cfg = load("train_rl", [f"resume_dir={tmp_path}", "rlft_config.noise_level=0.7", "training.max_steps=9"])
    assert (cfg.resume, cfg.exploration.noise_level, cfg.sft.steps) == (str(tmp_path), 0.7, 9)


def test_old_keys_in_a_file_are_accepted_and_lose_against_the_command_line(tmp_path):
    (tmp_path / "old.yaml").write_text("defaults: [train_rl, _self_]\nrlft_config: {critic: {hidden_dims: [7]}}\n")
    assert load("train_rl", config_dir=tmp_path, config_name="old").critic.hidden_dims == [7]
    assert load("train_rl", ["critic.hidden_dims=[8]"], tmp_path, "old").critic.hidden_dims == [8]


@pytest.mark.parametrize(
    ("override", "new"),
    [
        ("output.save_videos=true", "eval.num_videos"),
        ("rlft_config.sde_mode=reinflow", "exploration.method"),
        ("rlft_config.critic.dropout=0.1", "critic.hidden_dims"),
        ("rlft_config.adv_method=gae", "exploration"),
        ("train.adv_method=GAE", "train.objective"),
        ("logging.verbose_update=true", "remove"),
        ("memory.enable_aggressive_cleanup=true", "remove"),
    ],
)
def test_old_keys_without_one_name_what_to_use(override, new):
    problem = only_problem(override)
    assert problem.startswith(override.split("=")[0])
    assert "not a setting here" in problem
    assert new in problem


def test_model_overrides_win():
    overrides = [f"model.model_overrides.{key}" for key in ("act_steps=2", "n_action_steps=8", "num_steps=3")]
    cfg = load("train_rl", overrides)
    assert (cfg.act_steps, cfg.n_action_steps, cfg.num_steps, cfg.num_steps_eval) == (2, 8, 3, 4)
    assert load("evaluate", overrides).num_steps_eval == 3


def test_files_that_cannot_be_read_are_told(tmp_path):
    (tmp_path / "bad.yaml").write_text("a: [\n")
    (tmp_path / "list.yaml").write_text("- 1\n")
    assert "no such directory" in only_problem(config_dir=tmp_path / "nowhere")
    assert "there are bad, collect_demos" in only_problem(config_dir=tmp_path, config_name="nothing")
    assert "bad.yaml" in only_problem(config_dir=tmp_path, config_name="bad")
    assert "list.yaml" in only_problem(config_dir=tmp_path, config_name="list")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    assert "bytes.yaml: 'utf-8' codec" in only_problem(config_dir=tmp_path, config_name="bytes")
    (tmp_path / "flat.yaml").write_text(dump(load("train_rl")))
    assert "defaults list" in only_problem("task=toy", config_dir=tmp_path, config_name="flat")


HEAVY = ("torch", "lerobot", "mani_skill", "sapien", "transformers", "wandb", "numpy", "gymnasium")
RUN_SCRIPT = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("HEAVY", [m for m in {heavy} if m in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("entry", "arguments", "status"),
    [(entry, ["--help"], 0) for entry in ENTRIES] + [("train_rl", ["env.num_env=4"], 2), ("train_rl", ["--cfg"], 0)],
)
def test_help_and_errors_are_quick_import_nothing_heavy_and_make_nothing(entry, arguments, status, tmp_path):
    command = [sys.executable, "-c", RUN_SCRIPT.format(heavy=HEAVY), str(ROOT / "scripts" / f"{entry}.py"), *arguments]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 1.5
    assert done.returncode == status, done.stderr
    assert "HEAVY []" in done.stderr
    assert list(tmp_path.iterdir()) == []
    if status == 2:
        assert "did you mean env.num_envs?" in done.stderr
    else:
        assert "num_envs" in done.stdout


@pytest.mark.parametrize(
    ("env_id", "task"),
    [
        ("PickCube-v1", "pick_cube"),
        ("ToyReach-v0", "toy"),
        ("PutOnPlateInScene25Single-v1", "put_on_plate"),
        ("PutOnPlateInScene25VisionTexture03-v1", "put_on_plate"),
        ("PutSpoonOnTableClothInScene-v1", "widowx"),
        ("NoSuchTask-v1", None),
    ],
)
def test_the_file_that_serves_an_id(env_id, task):
    assert task_serving(env_id) == task


def test_a_directory_of_ones_own_comes_first(tmp_path):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text("env: {id: PickCube-v1}\n")
    (tmp_path / "task" / "broken.yaml").write_text("env: {id: [\n")
    assert task_serving("PickCube-v1", tmp_path) == "mine"


def test_the_id_brings_controller_and_cameras_with_it():
    env = compose_tree("collect_demos", ["env.id=PutSpoonOnTableClothInScene-v1", "env.max_episode_len=70"])["env"]
    assert env["id"] == "PutSpoonOnTableClothInScene-v1"
    assert env["control_mode"] == "arm_pd_ee_target_delta_pose_align2_gripper_pd_joint_pos"
    assert [camera["name"] for camera in env["cameras"]] == ["3rd_view_camera"]
    assert env["max_episode_len"] == 70


def test_a_task_that_is_named_wins_over_the_id():
    env = compose_tree("train_rl", ["task=push_heavy_cube", "env.id=PushCube-v1"])["env"]
    assert env["make_kwargs"]["variation"]["object_mass"] == 13.0


def test_an_entry_without_a_task_keeps_its_own_settings(tmp_path):
    (tmp_path / "mine.yaml").write_text("env: {simulator: toy, control_mode: pd_joint_pos}\n")
    assert not takes_a_task(tmp_path / "mine.yaml")
    env = compose_tree("train_rl", ["env.id=PickCube-v1"], tmp_path, "mine")["env"]
    assert env["control_mode"] == "pd_joint_pos"


def test_a_directory_may_hold_a_task_and_nothing_else(tmp_path):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text(
        "# @package _global_\nserves: [Mine-v*]\nenv: {simulator: toy, id: Mine-v1, max_episode_len: 7}\n"
    )
    assert compose_tree("train_rl", ["env.id=Mine-v1"], tmp_path)["env"]["max_episode_len"] == 7
    assert compose_tree("train_rl", ["env.id=Mine-v2"], tmp_path)["env"]["max_episode_len"] == 7
    assert compose_tree("train_rl", ["task=mine"], tmp_path)["env"]["id"] == "Mine-v1"
