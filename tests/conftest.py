"""Eight fake CPU devices and a hasty compiler for every test, and the fixture for the reference material."""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most programs of the tests run once or twice, and nearly all of their time would go into optimising them. The tests
# of the demo's page start a process of its own, which compiles as users do.
HASTY = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
)
if version("jaxlib").startswith("0.10."):  # later ones have no choice of code generators, and refuse the flag
    HASTY += ("--xla_cpu_use_fusion_emitters=false",)
_given = os.environ.get("XLA_FLAGS", "")
_hasty = () if any(flag.split("=")[0] in _given for flag in HASTY) else HASTY
_devices = () if "device_count" in _given else ("--xla_force_host_platform_device_count=8",)
os.environ["XLA_FLAGS"] = " ".join((*_given.split(), *_devices, *_hasty))

import pytest  # noqa: E402

from piza_jax import garbage  # noqa: E402
from tests import figures  # noqa: E402

garbage.collect_seldom()

SHARED = Path(os.environ.get("PIZA_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder with the reference goldens and the real SOREC records; it is not part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"reference material is not at {SHARED}; set PIZA_SHARED to its folder")
    return SHARED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of long tests first, so that no worker waits at the end for one of them."""
    long = (
        "test_quickstart.py",
        "test_docs_run.py",
        "test_goldens.py",
        "test_hugging_face.py",
        "test_peft_runs.py",
        "test_cli.py",
    )
    items.sort(key=lambda item: long.index(item.path.name) if item.path.name in long else len(long))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: Any) -> None:
    """Take over what a worker of pytest-xdist measured."""
    del error
    for name, value in getattr(node, "workeroutput", {}).get("figures", {}).items():
        figures.note(name, value)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In such a worker: hand it over."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["figures"] = dict(figures.LARGEST)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests measured, beside whether it was within their tolerances."""
    if figures.LARGEST:
        terminalreporter.section("largest differences measured")
        for name, value in sorted(figures.LARGEST.items()):
            terminalreporter.write_line(f"{value:9.2e}  {name}")
