"""Environments in worker processes: ``python -m rlft_envs.workers`` is one, ``pool.WorkerPool`` holds them."""
