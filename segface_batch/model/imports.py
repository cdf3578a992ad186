"""Importing timm and torchvision without waiting for torch's compiler, torch._dynamo.

It takes more CPU time to import (5 s) than torch itself, and only torch.compile needs it.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

_NAME = "torch._dynamo.utils"


@contextmanager
def compiler_on_demand() -> Iterator[None]:
    """Inside, torchvision and timm get stand-ins that import the compiler when they are first used.

    torchvision's roi_align imports a function from it; timm's NaFlexVit decorates a method with torch.compiler.disable.
    """
    if _NAME in sys.modules:
        yield
        return
    stand_in = sys.modules[_NAME] = _StandIn(_NAME)
    disable = torch.compiler.disable
    torch.compiler.disable = _disabled_on_demand
    try:
        yield
    finally:
        torch.compiler.disable = disable
        if sys.modules.get(_NAME) is stand_in:
            del sys.modules[_NAME]


class _StandIn(ModuleType):
    @staticmethod
    def is_compile_supported(*arguments: Any) -> bool:
        return _real().is_compile_supported(*arguments)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real(), name)


def _real() -> Any:
    if isinstance(sys.modules.get(_NAME), _StandIn):
        del sys.modules[_NAME]
    return importlib.import_module(_NAME)


def _disabled_on_demand(function: Callable[..., Any] | None = None, **settings: Any) -> Any:
    if function is None:
        return functools.partial(_disabled_on_demand, **settings)

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        return torch.compiler.disable(function, **settings)(*arguments, **named)

    return call
