"""Closed-loop evaluation under a frozen protocol; see docs/evaluation.md."""
