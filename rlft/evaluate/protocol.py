"""What has to be equal for two evaluations to be comparable: a frozen object, its hash, and the episodes it names."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from rlft.errors import RlftError
from rlft.files import canonical_json, content_hash
from rlft.seeding import seed_for
from rlft.types import CameraSettings, ConfigurationSpace, EnvSettings, EnvSpec

VERSION = 1  # raised whenever the same protocol would give other numbers
SUCCESS, TIME_LIMIT = "success", "time_limit"  # what ends an episode
SEEDS, ALL, STRATIFIED = "seeds", "all", "stratified"
MAX_ALL = 1_000_000  # the largest split that is run as a whole: 802,816 configurations
SHORT = 12  # hexadecimal digits of a hash that are shown


@dataclass(frozen=True)
class EvalProtocol:
    """Everything that two comparable evaluations share.

    How the work is spread (environments, workers, devices), what is kept (videos, label) and the reward's scale are no
    part of it: they change no episode's outcome. A test holds every field of the settings to one side or the other.
    """

    # As in :class:`rlft.types.EnvSettings`:
    simulator: str
    sim_backend: str  # `cpu` or `gpu` physics: the two do not give the same numbers
    env_id: str  # the task
    make_kwargs: str  # constructor arguments (`obj_set` among them) as canonical JSON, so that they cannot change
    options: str  # the simulator's own settings, as canonical JSON
    robot: str | None  # robot uid, or None
    shader: str  # renderer preset
    control_mode: str  # the controller
    cameras: tuple[CameraSettings, ...]  # what the policy sees
    state_terms: tuple[str, ...]  # what it is told of the robot
    instruction: str | None  # the text given instead of the task's own, or None
    max_episode_steps: int  # the time limit, environment steps
    # The rules:
    episode_end: str  # `success`: the first one ends an episode; `time_limit`: nothing but the limit does
    select: str  # `seeds`, `all` or `stratified`; see :func:`choose_ids`
    episodes: int  # how many
    seed: int  # names every episode's seed and noise, and the sample
    configuration_ids: tuple[int, ...] | None  # of each episode, in order; None where the seed decides
    num_steps: int  # denoise steps of the deterministic ODE
    act_steps: int  # A
    version: int = VERSION  # of the rules themselves

    def __post_init__(self) -> None:
        ids = self.configuration_ids
        if ids is not None and len(ids) != self.episodes:
            raise ValueError(f"episodes={self.episodes}, but {len(ids)} configuration_ids; give one each")

    @classmethod
    def of(cls, env: EnvSettings, **rules: Any) -> "EvalProtocol":
        """The protocol of an evaluation in environments built from ``env``; fields of the same name are taken over.

        ``rules`` are the fields from ``select`` on.
        """
        own = {x.name for x in fields(cls)}
        same: dict[str, Any] = {name: value for name, value in vars(env).items() if name in own}
        same |= {name: canonical_json(same[name]) for name in ("make_kwargs", "options")}
        return cls(**same, episode_end=SUCCESS if env.episode_ends_on_success else TIME_LIMIT, **rules)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, short enough to print: the configuration ids stand in it by their hash."""
        plain = asdict(self)
        if plain["options"] == "{}":
            del plain["options"]  # so that hashes from before there were options stay
        plain["configuration_ids"] = None if self.configuration_ids is None else content_hash(self.configuration_ids)
        return plain

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON of :meth:`to_dict`, 64 hexadecimal digits."""
        return content_hash(self.to_dict())

    def check(self, spec: EnvSpec) -> None:
        """Refuse environments that are not the protocol's, by a ValueError that names what differs."""
        promised = ("env_id", "control_mode", "cameras", "max_episode_steps")
        pairs = ((name, getattr(spec, name), getattr(self, name)) for name in promised)
        if wrong := "; ".join(f"{name}: {built!r}, not {mine!r}" for name, built, mine in pairs if built != mine):
            raise ValueError(f"the environments are not those of the protocol: {wrong}")
        if beyond := [i for i in self.configuration_ids or () if not 0 <= i < spec.num_configurations]:
            known = f"{self.env_id} has {spec.num_configurations} configurations"
            raise ValueError(f"configuration ids {beyond[:5]} do not exist: {known}")


@dataclass(frozen=True)
class Episode:
    """One episode to run; the same name gives the same episode wherever and whenever it runs."""

    index: int  # its place in the protocol's list; also names the policy's noise
    seed: int  # of the environment
    configuration_id: int | None  # the numbered configuration; None where the seed decides
    labels: Mapping[str, str]  # what the configuration shows, as the task names it


def choose_ids(select: str, episodes: int, seed: int, numbered: ConfigurationSpace | None) -> tuple[int, ...] | None:
    """The configurations of the episodes, in order; None where the task numbers none and the environment draws.

    ``select`` = ``seeds``: each drawn by its own seed, with repetition; ``all``: each of them once, however many
    ``episodes`` says; ``stratified``: ``episodes`` different ones, balanced over the labels. ``seed`` names the draw.

    Raises:
        RlftError: the task has no numbered configurations, or too few.
    """
    if numbered is None:
        if select == SEEDS:
            return None
        needs = "needs a task whose configurations are numbered, and this one's are not"
        raise RlftError(f"eval.select={select} {needs}; use eval.select={SEEDS}")
    if select == ALL:
        if numbered.count > MAX_ALL:
            what = f"would run {numbered.count:,} episodes, more than {MAX_ALL:,}"
            raise RlftError(f"eval.select={ALL} {what}; use eval.select={STRATIFIED} with eval.episodes")
        return tuple(range(numbered.count))
    if select == STRATIFIED:
        if episodes > numbered.count:
            remedy = f"use eval.episodes={numbered.count} or less, or eval.select={ALL}"
            raise RlftError(f"eval.episodes={episodes}, but the task has {numbered.count} configurations; {remedy}")
        return stratified_sample(numbered, episodes, seed)
    # Two seeds of 31 bits each: there are tasks with more configurations than one can name.
    drawn = ((seed_for(seed, "eval-configuration", i, j) for j in range(2)) for i in range(episodes))
    return tuple((high * 2**31 + low) % numbered.count for high, low in drawn)


def list_episodes(protocol: EvalProtocol, numbered: ConfigurationSpace | None) -> list[Episode]:
    """The protocol's episodes, by index."""
    seeds = [seed_for(protocol.seed, "eval-episode", i) for i in range(protocol.episodes)]
    ids = protocol.configuration_ids
    if ids is None:
        return [Episode(i, seed, None, {}) for i, seed in enumerate(seeds)]
    labels = [{} if numbered is None else dict(numbered.labels(i)) for i in ids]
    return list(map(Episode, range(len(ids)), seeds, ids, labels))


def stratified_sample(space: ConfigurationSpace, count: int, seed: int) -> tuple[int, ...]:
    """Draw numbered configurations without repetition, balanced over every axis of their numbers.

    However many are drawn, the counts of two values of an axis differ by at most one, and so do the counts of two
    combinations of the axes that the space balances first, then of these with each further axis in turn. Which values
    meet is shuffled by the seed. A shorter sample is the beginning of a longer one; ``count`` is at most all of them.
    """
    axes, rng = space.axes, np.random.default_rng(seed_for(seed, "eval-strata"))
    names = list(dict.fromkeys([*(name for name in space.balanced_first if name in axes), *axes]))
    digits = zip(names, balanced_order([axes[name] for name in names], count), strict=True)
    values = {name: rng.permutation(axes[name])[places].tolist() for name, places in digits}
    numbers = [0] * count  # Python's: a space may have more configurations than 64 bits can number
    for name, size in axes.items():
        numbers = [number * size + value for number, value in zip(numbers, values[name], strict=True)]
    return tuple(numbers)


def balanced_order(sizes: Sequence[int], count: int) -> list[np.ndarray]:
    """The first cells of an order that visits every cell of a grid once, with the values of every axis taking turns.

    Gives the digit of each cell, int64 ``[count]`` per axis.

    Axis j reads k mod n_j, shifted by one whenever it and the axes before it would start to repeat: with P the product
    of the sizes before it, digit_j(k) = (k' + floor(k' / lcm(P, n_j))) mod n_j, where k' = k mod P n_j. Within P n_j
    steps this visits each pair (k mod P, digit) once, and consecutive steps read consecutive digits: so within any
    beginning the values of an axis differ by at most one in count, and so do the cells of the first j axes.
    """
    k, digits, before = np.arange(count), [], 1
    for size in sizes:
        # Beyond count both stand for "not reached"; capping them keeps the products within 64 bits.
        period, repeat = min(before * size, count), min(math.lcm(before, size), count)
        within = k % period
        digits.append((within + within // repeat) % size)
        before *= size
    return digits
