"""A function of trees of tensors as one compiled graph, called without the checks that `torch.compile` makes each time.

Shapes, types and structure are those of the first call for good, which is how a batch of rows is: the checks would cost
as much as stepping a thousand rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

_ROWS_PER_THREAD = 8192  # waking a second thread costs more than stepping fewer rows


def flatten(tree: Any, leaves: list[Tensor]) -> None:
    """Append the tensors of a tree (tuples, NamedTuples, dicts, None) to `leaves`, contiguous."""
    if isinstance(tree, Tensor):
        leaves.append(tree if tree.is_contiguous() else tree.contiguous())
    elif tree is not None:
        for item in tree.values() if isinstance(tree, dict) else tree:
            flatten(item, leaves)


def rebuild(like: Any, leaves: Iterator[Tensor]) -> Any:
    """Put tensors back into the structure of `like`."""
    if isinstance(like, Tensor):
        return next(leaves)
    if like is None:
        return None
    if isinstance(like, dict):
        return {name: rebuild(item, leaves) for name, item in like.items()}
    items = [rebuild(item, leaves) for item in like]
    return type(like)(*items) if hasattr(like, "_fields") else tuple(items)


class CompiledFunction:
    """A compiled form of `function`, made at the first call.

    Args:
        function: takes trees of tensors and returns one; it is pure.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._run: Callable[..., Any] | None = None
        self._like: Any = None
        self._is_flag: list[bool] = []

    def __call__(self, *arguments: Any) -> Any:
        """Call the function with arguments of the structure of the first call."""
        leaves: list[Tensor] = []
        flatten(arguments, leaves)
        if self._run is None:
            self._run = self._compile(arguments, leaves)
        results = [leaf.bool() if flag else leaf for leaf, flag in zip(self._run(*leaves), self._is_flag)]
        return rebuild(self._like, iter(results))

    def _compile(self, arguments: Any, leaves: list[Tensor]) -> Callable[..., Any]:
        from torch.fx.experimental.proxy_tensor import make_fx

        def flat(*tensors: Tensor) -> list[Tensor]:
            self._like = self.function(*rebuild(arguments, iter(tensors)))
            results: list[Tensor] = []
            flatten(self._like, results)
            # on processors, compiled code writes truth values ten times slower than numbers
            self._is_flag = [leaf.dtype is torch.bool and leaf.dim() > 0 for leaf in results]
            return [leaf.to(torch.float32) if flag else leaf for leaf, flag in zip(results, self._is_flag)]

        # one tensor given twice would be traced as one argument, and what changes in one place later be read from the other
        leaves = [leaf.clone() for leaf in leaves]
        with torch.no_grad():
            graph = make_fx(flat)(*leaves)
            with torch._inductor.config.patch({"cpp.min_chunk_size": _ROWS_PER_THREAD}):
                run: Callable[..., Any] = torch._inductor.compile(graph, list(leaves))
            self._like = self.function(*arguments)
        return run
