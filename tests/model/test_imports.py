"""What is replaced while timm and torchvision are imported."""

from __future__ import annotations

import sys

import pytest
import torch

from segface_batch.model.imports import compiler_on_demand

COMPILER = "torch._dynamo.utils"


def test_what_is_replaced_for_an_import_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, COMPILER, raising=False)
    disable = torch.compiler.disable
    with compiler_on_demand():
        assert COMPILER in sys.modules
        assert torch.compiler.disable is not disable
    assert torch.compiler.disable is disable
    assert COMPILER not in sys.modules
