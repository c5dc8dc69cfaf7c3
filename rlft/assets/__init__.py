"""Simulator assets that are not part of this project: where they are, where they come from, whether they are whole."""
