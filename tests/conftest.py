"""What tests of several files need."""

from __future__ import annotations

import pytest

from tests import tiny_models


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of every tiny HF model, by name; not to be changed."""
    return tiny_models.save_all(tmp_path_factory.mktemp("models"))
