"""Closed-loop evaluation under a frozen protocol; see docs/evaluation.md."""

from rlft.evaluate.episodes import Episode, choose_ids
from rlft.evaluate.loop import Evaluator
from rlft.evaluate.protocol import Protocol
from rlft.evaluate.result import EpisodeResult, EvalResult

__all__ = ["Episode", "EpisodeResult", "EvalResult", "Evaluator", "Protocol", "choose_ids"]
