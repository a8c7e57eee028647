"""Hooks that are gone when the work is done."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

MARK = "_output_capturing_hooks_installed"
"""transformers' attribute of a network that has its hooks for hidden states: it would not install them again."""


@contextmanager
def hooks_as_before(*nets: nn.Module) -> Iterator[None]:
    """Forward hooks that are added inside are removed after, errors or not.

    transformers too leaves hooks, for good, on a network that was asked for hidden states.
    """
    modules = [module for net in nets for module in net.modules()]
    tables = [hooks for module in modules for hooks in (module._forward_hooks, module._forward_pre_hooks)]
    before = [set(hooks) for hooks in tables]
    marked = {module for module in modules if MARK in vars(module)}
    try:
        yield
    finally:
        for hooks, kept in zip(tables, before, strict=True):
            for key in set(hooks) - kept:
                del hooks[key]
        for module in modules:
            if module not in marked:
                vars(module).pop(MARK, None)
