"""The crop on the device against Pillow's antialiased resize of a float box."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from piza_jax.ops.crop import content_size, crop_resize
from piza_jax.ops.platforms import for_any_platform
from tests import figures

CANVAS = (96, 128)
PHOTO_CANVAS = (320, 400)
BATCH = 3
LIMITS = {"rows": 1, "dense": 2}  # levels of 255; dense rounds its weights to bfloat16


def make_photo(seed: int, height: int, width: int) -> np.ndarray:
    """Noise, flat fields and a gradient, so that every frequency occurs."""
    rng = np.random.default_rng(seed)
    photo = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    photo[: height // 3] = rng.integers(0, 256, 3)
    photo[-height // 3 :, :, 0] = np.linspace(0, 255, width)
    return photo


def put_on_canvas(photo: np.ndarray, canvas_hw: tuple[int, int]) -> np.ndarray:
    out = np.zeros((*canvas_hw, 3), np.uint8)
    out[: photo.shape[0], : photo.shape[1]] = photo
    return out


def pillow_view(photo: np.ndarray, box: np.ndarray, canvas_hw: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """The contract's geometry in float64 Python, and Pillow's pixels."""
    x0, y0, x1, y1 = (float(v) for v in box)
    scale = min(canvas_hw[1] / (x1 - x0), canvas_hw[0] / (y1 - y0))
    w = int(np.clip(np.floor((x1 - x0) * scale + 0.5), 1, canvas_hw[1]))
    h = int(np.clip(np.floor((y1 - y0) * scale + 0.5), 1, canvas_hw[0]))
    pixels = Image.fromarray(photo).resize((w, h), Image.Resampling.BILINEAR, box=(x0, y0, x1, y1))
    return put_on_canvas(np.asarray(pixels), canvas_hw), (h, w)


@partial(jax.jit, static_argnames="method")
def crop(photos, photo_hw, boxes, method):
    return crop_resize(photos, photo_hw, boxes, CANVAS, method)


fractions = st.floats(0, 1, width=32)


@pytest.mark.parametrize("method", list(LIMITS))
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 99),
    sizes=st.lists(st.tuples(st.integers(8, 320), st.integers(8, 400)), min_size=BATCH, max_size=BATCH),
    corners=st.lists(st.tuples(fractions, fractions), min_size=BATCH, max_size=BATCH),
    extents=st.lists(st.tuples(fractions, fractions), min_size=BATCH, max_size=BATCH),
)
def test_any_box_equals_pillow(method, seed, sizes, corners, extents):
    photos = [make_photo(seed + i, *size) for i, size in enumerate(sizes)]
    boxes = []
    for (h, w), (x, y), (a, b) in zip(sizes, corners, extents, strict=True):
        bw, bh = 1 + a * (w - 1), 1 + b * (h - 1)
        x0, y0 = x * (w - bw), y * (h - bh)
        boxes.append((x0, y0, min(x0 + bw, w), min(y0 + bh, h)))
    boxes = np.array(boxes, np.float32)
    canvases, valid_hw = crop(
        jnp.stack([put_on_canvas(photo, PHOTO_CANVAS) for photo in photos]), jnp.array(sizes), boxes, method
    )
    assert canvases.dtype == jnp.uint8
    for photo, box, canvas, found_hw in zip(photos, boxes, np.asarray(canvases), np.asarray(valid_hw), strict=True):
        expected, content_hw = pillow_view(photo, box, CANVAS)
        # a side that lies on .5 of a pixel to float32's precision may round either way
        assert np.abs(found_hw - content_hw).max() <= 1
        if tuple(found_hw) == content_hw:
            error = np.abs(canvas.astype(int) - expected)
            assert error.max() <= LIMITS[method]
            assert error.mean() < 2.0


@pytest.mark.parametrize("method", list(LIMITS))
@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 400, 320),
        (0, 0, 128, 96),
        (7, 9, 8, 10),
        (399, 319, 400, 320),
        (0.5, 0.25, 3.75, 319.5),
        (0, 300, 400, 302),
        (0, 100, 400, 104.6),  # 1.47 pixels high on the canvas: rounded to one, it is reduced more than it is across
    ],
    ids=["whole", "one to one", "one pixel", "last pixel", "tall", "flat", "thin"],
)
def test_special_boxes(method, box):
    photo = make_photo(5, *PHOTO_CANVAS)
    boxes = jnp.tile(jnp.array(box, jnp.float32), (BATCH, 1))
    canvases, valid_hw = crop(jnp.stack([photo] * BATCH), jnp.tile(jnp.array(PHOTO_CANVAS), (BATCH, 1)), boxes, method)
    expected, content_hw = pillow_view(photo, np.array(box), CANVAS)
    assert tuple(valid_hw[0]) == content_hw
    assert np.abs(np.asarray(canvases).astype(int) - expected).max() <= LIMITS[method]


@pytest.mark.parametrize("method", list(LIMITS))
@pytest.mark.parametrize("canvas_hw", [(97, 131), (3, 2), (450, 610)])
def test_any_canvas(method, canvas_hw):
    photo, box = make_photo(6, *PHOTO_CANVAS), np.array((10.5, 20.25, 310.75, 280), np.float32)
    found, _ = crop_resize(photo[None], np.array([PHOTO_CANVAS]), box[None], canvas_hw, method)
    expected, _ = pillow_view(photo, box, canvas_hw)
    assert np.abs(np.asarray(found[0]).astype(int) - expected).max() <= LIMITS[method]


def test_padding_of_the_photo_canvas_is_never_read():
    photo = make_photo(1, 50, 60)
    padded = np.full((*PHOTO_CANVAS, 3), 255, np.uint8)
    padded[:50, :60] = photo
    boxes = np.tile(np.array([0, 0, 60, 50], np.float32), (BATCH, 1))
    for method in LIMITS:
        canvases, _ = crop(jnp.stack([padded] * BATCH), jnp.tile(jnp.array([50, 60]), (BATCH, 1)), boxes, method)
        expected, _ = pillow_view(photo, boxes[0], CANVAS)
        assert np.abs(np.asarray(canvases[0]).astype(int) - expected).max() <= LIMITS[method]


def test_real_photo(shared_dir):
    """The bar of the project: mean absolute error below 2/255 on a real photo, whole and zoomed."""
    image = Image.open(shared_dir / "sorec/SODA-D/rawData/Images/21035.jpg").convert("RGB")
    photo = np.asarray(image)
    boxes = np.array([(0, 0, 2048, 1536), (1412, 506, 1786, 885), (1587.3, 666.2, 1608.9, 725.5)], np.float32)
    canvas = (512, 512)
    run = jax.jit(partial(crop_resize, canvas_hw=canvas, method="auto"))
    canvases, _ = run(jnp.stack([photo] * 3), jnp.tile(jnp.array(photo.shape[:2]), (3, 1)), boxes)
    for box, view in zip(boxes, np.asarray(canvases), strict=True):
        error = np.abs(view.astype(int) - pillow_view(photo, box, canvas)[0])
        figures.note("crop: against Pillow, mean absolute, levels of 255", error.mean())
        assert error.mean() < 0.5
        assert error.max() <= 1


def test_a_program_has_the_form_of_its_platform_and_one_for_export_has_all():
    arguments = jnp.zeros((1, 8, 8, 3), jnp.uint8), jnp.full((1, 2), 8), jnp.array([[0.0, 0.0, 8.0, 8.0]])

    def program():
        return str(jax.make_jaxpr(lambda *given: crop_resize(*given, (4, 4)))(*arguments))

    assert "platform_index" not in program()
    with for_any_platform():
        assert "platform_index" in program()


def test_each_sample_is_independent_of_the_batch():
    photos = jnp.stack([make_photo(i, *PHOTO_CANVAS) for i in range(BATCH)])
    boxes = jnp.array([(0, 0, 400, 320), (10.5, 20, 30, 44), (100, 100, 300, 250)], jnp.float32)
    hw = jnp.tile(jnp.array(PHOTO_CANVAS), (BATCH, 1))
    together, _ = crop(photos, hw, boxes, "rows")
    for i in range(BATCH):
        alone, _ = crop(photos[i : i + 1], hw[i : i + 1], boxes[i : i + 1], "rows")
        np.testing.assert_array_equal(alone[0], together[i])


def test_sharded_batch_gives_the_same_pixels():
    photos = jnp.stack([make_photo(i, 64, 80) for i in range(8)])
    boxes = jnp.tile(jnp.array([3.5, 4, 50, 60.0]), (8, 1)) + jnp.arange(8.0)[:, None] * 0.5
    operands = photos, jnp.tile(jnp.array([64, 80]), (8, 1)), boxes
    expected, _ = crop(*operands, "rows")
    mesh = jax.make_mesh((8, 1), ("data", "fsdp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    with jax.set_mesh(mesh):
        sharding = jax.NamedSharding(mesh, jax.P(("data", "fsdp")))
        placed = [jax.device_put(x, sharding) for x in operands]
        lowered = jax.jit(partial(crop_resize, canvas_hw=CANVAS, method="rows")).lower(*placed).compile()
        found, _ = lowered(*placed)
    np.testing.assert_array_equal(found, expected)
    assert "all-gather" not in lowered.as_text()


def test_content_size_is_clipped_to_the_canvas():
    boxes = jnp.array([(0, 0, 1000, 0.5), (0, 0, 0.5, 1000), (0, 0, 4, 3)], jnp.float32)
    np.testing.assert_array_equal(content_size(boxes, CANVAS), [(1, 128), (96, 1), (96, 128)])


def test_unknown_method():
    with pytest.raises(ValueError, match="bicubic"):
        crop_resize(
            jnp.zeros((1, 4, 4, 3), jnp.uint8), jnp.array([[4, 4]]), jnp.array([[0, 0, 4.0, 4]]), (8, 8), "bicubic"
        )
