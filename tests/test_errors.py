from __future__ import annotations

import pytest

from segface_batch.errors import ERRORS, ImageError


def test_an_error_word_that_no_table_explains_gets_into_no_output() -> None:
    assert [str(ImageError(word)) for word in ERRORS] == [*ERRORS]
    with pytest.raises(KeyError, match=r"'odd' is not in segface_batch\.errors\.ERRORS"):
        ImageError("odd")
