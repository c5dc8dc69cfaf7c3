"""rlft: online RL fine-tuning of flow-matching robot policies in simulated manipulation.

Importing this package is cheap: no torch, no simulator, no lerobot. Every heavy
module is imported by :mod:`rlft.run.assembly`, when a stage that needs it starts.
"""

__version__ = "0.1.0"
