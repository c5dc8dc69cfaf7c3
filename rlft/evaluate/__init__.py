"""Closed-loop evaluation under a frozen protocol; see docs/evaluation.md."""

from rlft.evaluate.loop import Evaluator
from rlft.evaluate.protocol import EvalProtocol, choose_ids
from rlft.evaluate.result import EpisodeResult, EvalResult

__all__ = ["EpisodeResult", "EvalProtocol", "EvalResult", "Evaluator", "choose_ids"]
