"""The checkpoint of a policy, of whichever family: its files, a description of it, and a manifest of both.

``pretrained_model/``::

    rlft_policy.json   kind, precision, horizon, statistics, and what the family says of itself
    manifest.json      size and SHA-256 of every file
    ...                the family's own files (:mod:`rlft.policy.pi0.factory`: lerobot's layout)
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from rlft import plugins
from rlft.config.schema import ModelConfig
from rlft.data.normalize import NormStats
from rlft.manifest import MANIFEST, find_damage, write_manifest
from rlft.policy.base import FlowPolicy, PolicyFamily
from rlft.policy.weights_io import WeightsError

POLICY = "rlft_policy.json"
FORMAT = 2
FIELDS = {"format", "kind", "dtype", "horizon", "stats"}


def family_of(kind: str) -> PolicyFamily:
    """What makes the policies of a ``model.kind``; ConfigError where there is no such kind."""
    return plugins.load("policies", kind, "model.kind")


def build_policy(model: ModelConfig, stats: NormStats, **how: Any) -> FlowPolicy:
    """A new policy; arguments and errors as in :meth:`rlft.policy.base.PolicyFamily.build`."""
    policy = family_of(model.kind).build(model, stats, **how)
    policy.kind, policy.dtype = model.kind, model.dtype
    return policy


def save_pretrained(policy: FlowPolicy, directory: str | Path) -> None:
    """Write the checkpoint into a new or empty directory (the caller renames it into place).

    Raises:
        FileExistsError: the directory holds something.
        DivergedError: a weight is not finite; as the family's ``save`` says.
    """
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise FileExistsError(f"{target} is not empty; a checkpoint is written into a new directory.")
    own = family_of(policy.kind).save(policy, target)
    facts = {"format": FORMAT, "kind": policy.kind, "dtype": policy.dtype, "horizon": policy.horizon, **own}
    text = json.dumps({**facts, "stats": asdict(policy.stats)}, indent=2)
    (target / POLICY).write_text(text + "\n", encoding="utf-8")
    write_manifest(target)


def load_pretrained(
    directory: str | Path,
    *,
    device: torch.device,
    model: ModelConfig | None = None,
    stats: NormStats | None = None,
    verified: bool = False,
) -> FlowPolicy:
    """Load a checkpoint, ``pretrained_model/``, that :func:`save_pretrained` wrote; nothing is left at random.

    Of ``model``, precision and training are taken (None: as saved); what the checkpoint says of kind and sizes wins.
    ``stats`` are others than its own. It is ``verified`` where its files were compared with their manifest just now
    (:func:`rlft.run.checkpoint.find_resume`).

    Raises:
        WeightsError: a file is missing, damaged, or does not fit; it is named.
        StatsError: the statistics are broken.
    """
    source = Path(directory)
    if not verified:
        _verify(source)
    facts = read_description(source)
    model = ModelConfig(dtype=facts["dtype"]) if model is None else model
    stats = stats or NormStats.from_dict(facts["stats"], source=str(source / POLICY))
    policy = family_of(facts["kind"]).load(source, facts, replace(model, kind=facts["kind"]), stats, device)
    policy.kind, policy.dtype = facts["kind"], model.dtype
    return policy


def inspect_pretrained(directory: str | Path, model: ModelConfig | None = None) -> dict[str, Any]:
    """Check what can be known of a checkpoint in seconds: its description, and of its weights the keys and shapes.

    Only :func:`load_pretrained` reads the weights, and compares them with the manifest. Gives ``rlft_policy.json``.

    Raises:
        WeightsError: a file is missing, damaged, or does not fit; it is named.
    """
    source = Path(directory)
    _verify(source, unread=[path.name for path in source.glob("*.safetensors")])
    facts = read_description(source)
    family_of(facts["kind"]).check(source, facts, model or ModelConfig(kind=facts["kind"]))
    return facts


def read_description(source: Path) -> dict[str, Any]:
    """``rlft_policy.json``; WeightsError where it is missing, damaged or of another version."""
    path = source / POLICY
    if not path.is_file():
        what = "a checkpoint of lerobot's" if (source / "config.json").is_file() else "no checkpoint"
        raise WeightsError(
            f"{path} is missing: {source} is {what}. For weights of lerobot's own, give model.kind and dataset_stats, "
            "so that the policy can be built around them."
        )
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path}: no readable JSON ({error}).") from error
    if not isinstance(facts, dict) or "format" not in facts:
        raise WeightsError(f"{path}: wanted the fields {sorted(FIELDS)}, got {facts!r:.100}.")
    if facts["format"] != FORMAT:
        raise WeightsError(
            f"{path}: format {facts['format']!r}; this version reads {FORMAT}. Take the version of rlft that wrote it, "
            "or train anew."
        )
    if missing := FIELDS - set(facts):
        raise WeightsError(f"{path}: the fields {sorted(missing)} are missing.")
    return facts


def _verify(source: Path, unread: Sequence[str] = ()) -> None:
    """Compare with the manifest, where there is one: weights of others have none."""
    if (source / MANIFEST).is_file() and (reason := find_damage(source, unread=unread)) is not None:
        raise WeightsError(f"{source}: {reason}")
