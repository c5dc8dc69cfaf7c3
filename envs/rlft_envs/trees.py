"""Nested dictionaries of tensors whose first axis is the environment, as ManiSkill keeps its states."""

from __future__ import annotations

from typing import Any

Tree = Any
"""A tensor ``[E, ...]``, or a dictionary of trees."""


def clone_tree(tree: Tree) -> Tree:
    """A deep copy."""
    if isinstance(tree, dict):
        return {name: clone_tree(branch) for name, branch in tree.items()}
    return tree.clone()


def take_rows(tree: Tree, ids: Any) -> Tree:
    """The rows ``ids`` of every leaf."""
    if isinstance(tree, dict):
        return {name: take_rows(branch, ids) for name, branch in tree.items()}
    return tree[ids]


def put_rows(tree: Tree, rows: Tree, ids: Any) -> None:
    """Write ``rows`` over the rows ``ids`` of every leaf, in place."""
    if isinstance(tree, dict):
        for name, branch in tree.items():
            put_rows(branch, rows[name], ids)
    else:
        tree[ids] = rows
