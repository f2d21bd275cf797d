"""Operations on states (NamedTuples of tensors, possibly nested) and observations (tensors or dicts of them)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def map_tree(function: Callable[..., Tensor], tree: Any, *others: Any) -> Any:
    """Apply `function` to the tensors of trees of one structure."""
    if isinstance(tree, Tensor):
        return function(tree, *others)
    if isinstance(tree, dict):
        return {name: map_tree(function, item, *[other[name] for other in others]) for name, item in tree.items()}
    if hasattr(tree, "_fields"):
        return type(tree)(*[map_tree(function, *items) for items in zip(tree, *others)])
    raise TypeError(f"a state is a NamedTuple, an observation a tensor or a dict; found {type(tree).__name__}")


def leaves(tree: Any) -> Iterator[Tensor]:
    """Go through the tensors of a tree."""
    if isinstance(tree, Tensor):
        yield tree
    else:
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(item)


def where(condition: Tensor, chosen: Any, other: Any) -> Any:
    """Take the rows of `chosen` where `condition`, [N] bool, holds, those of `other` elsewhere."""

    def pick(a: Tensor, b: Tensor) -> Tensor:
        if a is b:
            return a
        return torch.where(condition.reshape(-1, *[1] * (a.dim() - 1)), a, b)

    return map_tree(pick, chosen, other)


def take(tree: Any, rows: Tensor) -> Any:
    """Copy rows, [k] int64, of every tensor."""
    return map_tree(lambda leaf: leaf.index_select(0, rows), tree)


def put(tree: Any, rows: Tensor, values: Any, in_place: bool = False) -> Any:
    """Return the tree with some rows replaced; unless `in_place`, the tensors given stay as they are."""
    if in_place:
        return map_tree(lambda leaf, value: leaf.index_copy_(0, rows, value), tree, values)
    return map_tree(lambda leaf, value: leaf.index_copy(0, rows, value), tree, values)


def clone(tree: Any) -> Any:
    """Copy every tensor."""
    return map_tree(torch.clone, tree)


def unaliased(tree: Any, state: Any) -> Any:
    """Copy those tensors of an observation that share memory with the state, so that a user may write into them."""
    owned = {leaf.untyped_storage().data_ptr() for leaf in leaves(state)}
    return map_tree(lambda leaf: leaf.clone() if leaf.untyped_storage().data_ptr() in owned else leaf, tree)


def to_plain(tree: Any) -> Any:
    """Turn a state into nested dicts of copies, ready for `torch.save`."""
    if isinstance(tree, Tensor):
        return tree.clone()
    return {name: to_plain(item) for name, item in zip(tree._fields, tree)}


def from_plain(like: Any, plain: Any, device: torch.device) -> Any:
    """Turn `to_plain`'s output back into a state of the same type as `like`."""
    if isinstance(like, Tensor):
        return plain.detach().to(device, copy=True)
    return type(like)(*[from_plain(item, plain[name], device) for name, item in zip(like._fields, like)])
