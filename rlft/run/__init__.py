"""From the settings to the run: parts connected, stages, the loop, checkpoints, tracking."""
