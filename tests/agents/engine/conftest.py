import pytest


@pytest.fixture
def compile_cache(request, monkeypatch):
    """One folder of compiled code for all tests and runs, since the same code is compiled again and again."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(request.config.cache.mkdir("inductor")))
