"""A package as a user would write it: nothing in rlft knows it."""
