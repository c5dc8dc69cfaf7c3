"""Learning: epochs of updates over a finished rollout, and supervised fine-tuning (SFT)."""
