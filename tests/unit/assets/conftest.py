"""What the tests of assets share."""

import pytest
from asset_server import serving


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as place:
        yield place
