"""What a training run costs, measured on its own network as shapes alone: bytes per device, FLOPs per iteration."""
