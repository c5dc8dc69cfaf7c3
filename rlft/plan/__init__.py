"""What a training run costs, by arithmetic alone: bytes per device, FLOPs per iteration. No torch, no lerobot."""
