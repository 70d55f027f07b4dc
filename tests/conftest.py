"""Fixtures every test may use."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# One thread a process: the arrays of the tests are small, and several test runs may share a machine.
# Set before torch, numba or OpenBLAS are first imported; a value from outside wins.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("PIXELKIN_QUIET", "1")

# No deadlines: a busy machine is no failure. A test that needs more or fewer examples says so itself.
settings.register_profile("pixelkin", max_examples=60, deadline=None)
settings.load_profile("pixelkin")


# A shell that starts the tests in the background has them ignore Ctrl-C, and their subprocesses too.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Silence what pycocotools says to NumPy 2 at every mask it decodes."""
    config.addinivalue_line("filterwarnings", "ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets: beside the repository or at PIXELKIN_SHARED_DATA; skips where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PIXELKIN_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set PIXELKIN_SHARED_DATA")
    return folder
