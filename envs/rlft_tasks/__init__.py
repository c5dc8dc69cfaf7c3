"""Tasks and their planners: each a plug-in (:class:`rlft_envs.task.Task`) that the runtime finds by its name."""
