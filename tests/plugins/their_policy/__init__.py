"""A package of somebody else's: it imports rlft, and rlft does not know it."""
