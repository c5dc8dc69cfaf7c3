"""The composition root: settings in, connected parts out. Here parts meet that know nothing of each other.

Heavy imports happen inside the functions, so that a stage loads only what it uses.
"""
