"""Eight fake CPU devices for every test, and the fixture for the reference material beside the checkout."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
_FLAG = "--xla_force_host_platform_device_count=8"
if _FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}".strip()

import pytest  # noqa: E402

from tests import figures  # noqa: E402

SHARED = Path(os.environ.get("PIZA_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder with the reference goldens and the real SOREC records; it is not part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"reference material is not at {SHARED}; set PIZA_SHARED to its folder")
    return SHARED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests measured, beside whether it was within their tolerances."""
    if figures.LARGEST:
        terminalreporter.section("largest differences measured")
        for name, value in sorted(figures.LARGEST.items()):
            terminalreporter.write_line(f"{value:9.2e}  {name}")
