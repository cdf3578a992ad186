"""The network that MODULE:FACTORY names, and the one line for each way to name none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from segface_batch import catalog
from segface_batch.catalog import FaceClass
from segface_batch.images.confidence import Confidence
from segface_batch.model.network import Parsed, factory
from tests import stand_in

#: Not a factory: it has no checkpoint.
WITHOUT_CHECKPOINT = object()


def test_a_factory_is_found_by_module_and_name() -> None:
    assert factory("tests.stand_in:Quick") is stand_in.Quick


@pytest.mark.parametrize("place", ["Quick", "tests.stand_in.Quick", "tests.stand_in:", ":Quick", "a:b:c", "a b:c", ""])
def test_a_place_of_another_form_is_refused(place: str) -> None:
    message = f"--network {place}: give MODULE:FACTORY, like my_package.networks:MyNetwork"
    assert refusal(place) == message


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("no_such_package.networks:Mine", "No module named 'no_such_package'"),
        ("tests.no_such_module:Mine", "No module named 'tests.no_such_module'"),
        ("tests.stand_in:NoSuchName", "module 'tests.stand_in' has no attribute 'NoSuchName'"),
    ],
    ids=["no package", "no module", "no attribute"],
)
def test_a_place_without_a_factory_says_what_is_missing(place: str, reason: str) -> None:
    assert refusal(place) == f"--network {place}: {reason}; give a module on PYTHONPATH and a name in it"


def test_a_factory_needs_a_checkpoint() -> None:
    place = f"{__name__}:WITHOUT_CHECKPOINT"
    assert refusal(place) == (
        f"--network {place} has no attribute `checkpoint`: give it a segface_batch.catalog.Checkpoint with its name, "
        "resolution and class table"
    )


def with_classes(names: Sequence[str]) -> SimpleNamespace:
    """A factory whose class table has these names."""
    classes = tuple(FaceClass(name, "", (0, 0, 0)) for name in names)
    checkpoint = catalog.find("demo-synthetic")
    return SimpleNamespace(checkpoint=replace(checkpoint, dataset=replace(checkpoint.dataset, classes=classes)))


LARGEST = with_classes([f"class_{number}" for number in range(255)])
TOO_LARGE = with_classes([f"class_{number}" for number in range(256)])
#: DuckDB's columns do not tell them apart.
ALIKE = with_classes(["background", "Hair", "hair"])


def test_a_mask_holds_255_classes() -> None:
    assert factory(f"{__name__}:LARGEST") is LARGEST


@pytest.mark.parametrize("name", ["TOO_LARGE", "ALIKE"])
def test_a_class_table_that_makes_no_masks_or_columns_is_refused(name: str) -> None:
    assert refusal(f"{__name__}:{name}") == (
        f"--network {__name__}:{name}: give its class table 2 to 255 classes, whose names differ in more than upper "
        "and lower case"
    )


def test_each_mask_comes_with_its_confidence_or_none() -> None:
    labels = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    told = [Confidence(np.ones(2), np.ones(2), each, 0, 0) for each in (0.25, 0.5)]
    with_told, without = ([*Parsed(labels, given).masks()] for given in (told, None))
    assert [(mask.tolist(), each) for mask, each in with_told] == list(zip(labels.tolist(), told, strict=True))
    assert [(mask.tolist(), each) for mask, each in without] == [(mask, None) for mask in labels.tolist()]
    with pytest.raises(ValueError, match="shorter"):
        list(Parsed(labels, told[:1]).masks())


def refusal(place: str) -> str:
    with pytest.raises(ValueError, match=r"^--network") as caught:
        factory(place)
    return str(caught.value)


def test_each_mask_of_a_batch_has_its_own_confidence_or_none() -> None:
    labels = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    told = [Confidence(np.ones(2), np.ones(2), 0.5, number, 0.1) for number in range(2)]
    for confidence, expected in ((told, told), (None, [None, None])):
        masks = list(Parsed(labels, confidence).masks())
        assert [mask.tolist() for mask, _ in masks] == labels.tolist()
        assert [each for _, each in masks] == expected
    with pytest.raises(ValueError, match="zip"):
        list(Parsed(labels, told[:1]).masks())
