"""Collecting experience: the sampler and the buffer."""
