"""The table of a base counts look-alikes as one sees them."""

from benchmarks.mini_base import look_alikes
from piza_jax.data.mini_source import MiniSource
from piza_jax.data.world.pictures import make_picture


def test_look_alikes_are_the_other_things_of_one_look_that_the_picture_shows():
    source = MiniSource("val", 12, normal=True)
    found = look_alikes(source)
    assert len(found) == len(source)
    assert min(found) == 0
    assert max(found) > 1
    for (number, record), count in zip(source.records, found, strict=True):
        picture = make_picture(source.split, number)
        x0, y0, x1, y1 = picture.window
        (target,) = [one for one in picture.expressions if one.text == record.expression]
        look = picture.scene.things[target.target]
        boxes = [
            thing.box
            for thing in picture.scene.things
            if (thing.kind, thing.colour, thing.detail) == (look.kind, look.colour, look.detail)
        ]
        inside = sum(x0 <= a and y0 <= b and c <= x1 and d <= y1 for a, b, c, d in boxes)
        touching = sum(a < x1 and c > x0 and b < y1 and d > y0 for a, b, c, d in boxes)
        assert inside - 1 <= count <= touching - 1
