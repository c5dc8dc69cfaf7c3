"""The stages of the pipeline: each reads the artefact of the one before and leaves its own in the run directory."""

from rlft.run.stages.evaluation import evaluate, report
from rlft.run.stages.training import collect_demos, train_rl, train_sft

__all__ = ["collect_demos", "evaluate", "report", "train_rl", "train_sft"]
