"""A headless browser, where the machine has one."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_browser() -> str:
    """Path of a browser; skips the test where there is none."""
    browser = next(filter(None, map(shutil.which, _NAMES)), None)
    if browser is None:
        pytest.skip(f"none of the browsers {', '.join(_NAMES)} is on the PATH")
    return browser


def screenshot(page: Path, folder: Path, width: int = 1000, height: int = 1400, dark: bool = False) -> np.ndarray:
    """What a page looks like, uint8 [H, W, 3], seen without any network; skips the test where there is no browser."""
    browser = find_browser()
    picture = folder / f"{width}_{dark}.png"
    options = ["--headless", "--disable-gpu", "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND"]
    options += ["--no-sandbox"] if os.geteuid() == 0 else []  # a browser refuses to run as root with one
    options += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--user-data-dir={folder / 'profile'}"]
    options += [f"--window-size={width},{height}", f"--screenshot={picture}"]
    run = subprocess.run([browser, *options, page.resolve().as_uri()], capture_output=True, text=True, timeout=120)
    assert picture.is_file(), run.stderr
    return np.asarray(Image.open(picture).convert("RGB"))
