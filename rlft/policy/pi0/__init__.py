"""π0 and π0.5 as a FlowPolicy: lerobot's modules, their forward pass, tokenizer, transforms and checkpoints."""
