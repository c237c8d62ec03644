from __future__ import annotations

import pytest
from e2e.project import Project, start_project


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return start_project(tmp_path_factory.mktemp("project"))
