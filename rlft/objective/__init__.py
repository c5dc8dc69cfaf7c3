"""What is optimised: what a decision leaves, what a finished rollout says of it, and the loss."""
