"""rlft: online RL fine-tuning of flow-matching robot policies in simulated manipulation.

Importing this package is cheap: no torch, no simulator, no lerobot. :mod:`rlft.cli` imports the stages, and with
them torch, once the settings are known to be good.
"""

__version__ = "0.1.0"
