"""The memory of decoded photos: bounded in bytes, by photo and scale, and never a change of what is returned."""

import threading

import numpy as np
import pytest
from PIL import Image

from piza_jax.data.photo_cache import PhotoCache
from tests.small_source import encoded

PIXELS = 4 * 160 * 120  # bytes of a decoded photo


def photo(number):
    rng = np.random.default_rng(number)
    return encoded(Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((160, 120)), "JPEG")


def test_a_photo_is_decoded_once_for_a_scale():
    cache, data = PhotoCache(10**6), photo(0)
    first = cache.get(data, "a.jpg")
    assert cache.get(bytes(bytearray(data)), "a.jpg") is first  # read again from the disk
    half = cache.get(data, "a.jpg", 2)
    assert half.image.size == (80, 60)
    assert cache.get(data, "a.jpg", 2) is half
    assert cache.get(data, "a.jpg") is first
    assert cache.num_bytes == 2 * len(data) + PIXELS + PIXELS // 4


def test_a_photo_that_has_no_scales_is_decoded_once():
    cache = PhotoCache(10**6)
    data = encoded(Image.new("RGB", (160, 120), "red"))
    assert cache.get(data, "a.png", 4) is cache.get(data, "a.png") is cache.get(data, "a.png", 2, 30)
    assert len(cache) == 1


def test_another_photo_of_the_same_name_is_another():
    cache = PhotoCache(10**6)
    assert cache.get(photo(0), "a.jpg").image.tobytes() != cache.get(photo(1), "a.jpg").image.tobytes()


def test_more_rows_serve_for_fewer_and_replace_them():
    cache, data = PhotoCache(10**6), photo(0)
    upper = cache.get(data, "a.jpg", 1, 40)
    assert cache.get(data, "a.jpg", 1, 20) is upper
    more = cache.get(data, "a.jpg", 1, 60)
    assert more.rows >= 60
    assert cache.get(data, "a.jpg", 1, 40) is more
    whole = cache.get(data, "a.jpg")
    assert whole.rows == 120
    assert cache.get(data, "a.jpg", 1, 200) is cache.get(data, "a.jpg", 1, 60) is whole
    assert len(cache) == 1
    assert cache.num_bytes == len(data) + PIXELS


def test_the_photo_used_longest_ago_goes_first():
    photos = [photo(number) for number in range(4)]
    cache = PhotoCache(sum(map(len, photos[:3])) + 3 * PIXELS + 2000)
    first, second, third = (cache.get(data, "a.jpg") for data in photos[:3])
    assert cache.get(photos[0], "a.jpg") is first
    cache.get(photos[3], "a.jpg")
    assert cache.get(photos[0], "a.jpg") is first
    assert cache.get(photos[2], "a.jpg") is third
    assert cache.get(photos[1], "a.jpg") is not second


@pytest.mark.parametrize("limit", [0, 1000, PIXELS, 3 * PIXELS])
def test_the_limit_in_bytes_is_never_passed(limit):
    cache = PhotoCache(limit)
    for number in range(6):
        for factor in (1, 2, 4):
            cache.get(photo(number), "a.jpg", factor)
            assert cache.num_bytes <= limit
    assert (len(cache) > 0) == (limit > 2000)
    cache.clear()
    assert (len(cache), cache.num_bytes) == (0, 0)


def test_threads_share_it():
    cache, photos, wrong = PhotoCache(3 * PIXELS), [photo(number) for number in range(4)], []
    expected = {
        (number, factor): PhotoCache(0).get(photos[number], "", factor).image.tobytes()
        for number in range(4)
        for factor in (1, 2)
    }

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(60):
            number, factor = int(rng.integers(4)), int(rng.integers(1, 3))
            if cache.get(photos[number], "", factor).image.tobytes() != expected[number, factor]:
                wrong.append((number, factor))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    held = sum(len(key[1]) + 4 * part.image.width * part.image.height for key, part in cache._kept.items())
    assert cache.num_bytes == held <= cache.max_bytes
