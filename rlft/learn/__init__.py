"""Learning: advantages, PPO and the supervised warm-up."""
