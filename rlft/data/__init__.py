"""Demonstrations, statistics and the transforms shared by SFT, rollout and evaluation."""
