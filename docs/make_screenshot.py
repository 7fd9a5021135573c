"""Photographs the demo after a search: ``python -m docs.make_screenshot --checkpoint=MODEL docs/demo.png``."""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import sync_playwright

from piza_jax.errors import PizaError

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def photograph(address: str, path: Path, example: int = 0, width: int = 1280) -> None:
    """Choose an example of a running demo, search, and save the page as a PNG; needs a browser on the PATH."""
    browser_path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser_path is None:
        raise PizaError(f"none of the browsers {', '.join(_BROWSERS)} is on the PATH")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(900_000)
        page.goto(address)
        page.locator("tr.tr-body").nth(example).click()
        page.wait_for_selector("#photo img")
        page.click("#find")
        page.wait_for_selector("#strip img")
        page.wait_for_timeout(1500)
        page.screenshot(path=path, full_page=True)
        browser.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Start the demo, photograph it, and end it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--example", type=int, default=0)
    parser.add_argument("--port", type=int, default=7899)
    options = parser.parse_args(arguments)
    command = [sys.executable, "-m", "piza_jax.cli", "demo", f"--checkpoint={options.checkpoint}"]
    server = subprocess.Popen([*command, f"--port={options.port}"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        for _ in range(60):  # the line comes just before the server listens
            try:
                photograph(f"http://127.0.0.1:{options.port}/", options.path, options.example)
                break
            except Exception as error:
                if "ERR_CONNECTION_REFUSED" not in str(error):
                    raise
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
