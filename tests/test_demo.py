"""The demo: limits and results of its service, and the page in a real browser: upload, type, run, see a box."""

import contextlib
import dataclasses
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from piza_jax.demo.examples import draw_examples
from piza_jax.demo.page import answer_html
from piza_jax.demo.service import Limits, Service
from piza_jax.draw import FOUND
from piza_jax.errors import PizaError
from tests import fake_detector, odd_photos
from tests.browser import find_browser
from tests.ports import free_port
from tests.test_task import ROOT

WORDS = "green patch here"
LIMITS = Limits(megabytes=1.0, megapixels=2.0)
# Serves the detector of patches as `piza demo` serves a checkpoint.
SERVER = """
import sys
from piza_jax.demo.server import serve
from piza_jax.demo.service import Limits
from tests import fake_detector
model = fake_detector.loaded(fake_detector.PatchDetector, 2.0, canvas_hw=(96, 96))
serve({"patches": model, "others": model}, port=int(sys.argv[1]), limits=Limits(1.0, 2.0), num_examples=1)
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    photo, boxes = fake_detector.draw_patches(3, 300, 200)
    odd_photos.write(folder, photo)
    Image.fromarray(photo).save(folder / "street.png")
    Image.new("RGB", (2000, 1001)).save(folder / "large.png")
    (folder / "heavy.bmp").write_bytes(b"BM" + bytes(1_000_001))
    return folder, boxes["green"]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    model = fake_detector.loaded(fake_detector.PatchDetector, 2.0, canvas_hw=(96, 96))
    return Service({"patches": model}, tmp_path_factory.mktemp("demo"), LIMITS)


def test_two_searches_at_once_both_find_their_box(service, photos):
    folder, box = photos
    answers = {}

    def search(name):
        answers[name] = service.find(str(folder / name), WORDS, 3, 1, "patches")

    threads = [threading.Thread(target=search, args=(name,)) for name in ("street.png", "turned.jpg")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, answer in answers.items():
        np.testing.assert_allclose(answer.grounding.box, box, atol=2.5)
        assert json.loads(answer.record.read_text())["photo"] == name
        assert Image.open(answer.boxes).size == (300, 200)
        assert Image.open(answer.movie).n_frames > 10
        assert Image.open(answer.strip).width > 600
    assert len({answer.record.parent for answer in answers.values()}) == 2


@pytest.mark.parametrize(
    ("name", "words", "steps", "said"),
    [
        (None, WORDS, 3, "there is no photo yet"),
        ("street.png", " ", 3, "there is no sentence yet"),
        ("street.png", "patch " * 5000, 3, "the limit is 8"),
        ("street.png", WORDS, 99, "choose 1 to 8"),
        ("large.png", WORDS, 3, "2000 x 1001 pixels and the limit is 2 million; shrink"),
        ("heavy.bmp", WORDS, 3, "the limit is 1 MB"),
        *((name, WORDS, 3, said) for name, said in odd_photos.BAD.items()),
    ],
)
def test_bad_input_is_an_error_with_a_cure(service, photos, name, words, steps, said):
    with pytest.raises(PizaError, match=said):
        service.find(name and str(photos[0] / name), words, steps, 1, "patches")


def test_texts_from_outside_are_escaped(service, photos):
    answer = service.find(str(photos[0] / "street.png"), WORDS, 3, 1, "patches")
    found = dataclasses.replace(answer.grounding, expression="green patch <img src=x>")
    html = answer_html(answer._replace(grounding=found))
    assert "<img" not in html
    assert "&lt;img src=x&gt;" in html
    assert f"rgb{FOUND}" in html


def test_examples_are_drawn_scenes_whose_target_lies_in_them(tmp_path):
    (example,) = draw_examples(tmp_path, 1)
    with Image.open(example.path) as image:
        assert image.size == (2048, 1536)
    x0, y0, x1, y1 = example.target
    assert 0 <= x0 < x1 <= 2048
    assert 0 <= y0 < y1 <= 1536
    assert len(example.sentence.split()) > 4


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address of a running demo, and the folders that it must leave as they are."""
    places = {name: tmp_path_factory.mktemp(name) for name in ("home", "work", "temporary")}
    port = free_port()
    environment = {**os.environ, "HOME": str(places["home"]), "TMPDIR": str(places["temporary"]), "XLA_FLAGS": ""}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-c", SERVER, str(port)]
    process = subprocess.Popen(command, cwd=places["work"], env=environment, stdout=subprocess.PIPE, text=True)
    address = f"http://127.0.0.1:{port}/"
    try:
        assert process.stdout.readline().startswith(f"open {address}"), "the server did not start"
        for _ in range(120):
            with contextlib.suppress(urllib.error.URLError):
                urllib.request.urlopen(address, timeout=5).close()
                break
            time.sleep(0.5)
        yield address, places, process
    finally:
        process.kill()
        process.wait()


def listening(port):
    """Whether something answers on an address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        with contextlib.suppress(OSError):
            one.connect(("192.0.2.1", 9))  # sends nothing
        own = one.getsockname()[0]
    if own.startswith(("127.", "0.")):
        pytest.skip("this machine has no address but loopback")
    with socket.socket() as one:
        one.settimeout(2)
        return one.connect_ex((own, port)) == 0


@pytest.mark.slow
def test_the_page_in_a_browser(server, photos, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    address, places, process = server
    folder, box = photos
    with sync_api.sync_playwright() as play:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = play.chromium.launch(executable_path=find_browser(), args=options)
        page = browser.new_page(viewport={"width": 1360, "height": 1400})
        page.set_default_timeout(120_000)
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.click("#find")
        page.wait_for_selector("#answer .bad:has-text('there is no photo yet')")
        page.set_input_files("#photo input[type=file]", folder / "street.png")
        page.wait_for_selector("#photo img")
        page.fill("#sentence textarea", WORDS)
        page.click("#find")
        page.wait_for_selector("#answer b:has-text('Found at')")
        page.wait_for_selector("#strip img")
        numbers = re.search(r"Found at \((.*?)\)", page.inner_text("#answer"))[1]
        np.testing.assert_allclose([float(side) for side in numbers.split(",")], box, atol=3)
        shown = Image.open(io.BytesIO(page.request.get(page.get_attribute("#boxes img", "src")).body())).convert("RGB")
        rows, columns = np.argwhere(np.all(np.asarray(shown) == FOUND, axis=2)).T
        assert abs((columns.min() + columns.max()) / 2 - (box[0] + box[2]) / 2) < 15
        assert abs((rows.min() + rows.max()) / 2 - (box[1] + box[3]) / 2) < 15
        saved = {}
        for place in range(3):
            with page.expect_download() as download:
                page.click(f"#save_{place}")
            saved[download.value.suggested_filename] = tmp_path / download.value.suggested_filename
            download.value.save_as(saved[download.value.suggested_filename])
        assert list(saved) == ["street_zoom.png", "street_zoom.gif", "street_zoom.json"]
        np.testing.assert_allclose(json.loads(saved["street_zoom.json"].read_text())["box"], box, atol=2.5)
        assert Image.open(saved["street_zoom.gif"]).is_animated
        browser.close()
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert not listening(int(address.rstrip("/").rsplit(":", 1)[1]))
    assert [*places["home"].rglob("*")] == [*places["work"].rglob("*")] == []
    (kept,) = places["temporary"].iterdir()
    assert kept.name.startswith("piza_demo_")
    process.send_signal(signal.SIGINT)
    process.wait(30)
    assert [*places["temporary"].iterdir()] == []
