"""Python's garbage collector, told to look less often, for programs that trace models.

A trace makes some hundred thousand objects that stay. By default the collector starts at every 700 of them, and a third
of the time of a trace goes into looking at them again and again. What no cycle of references holds is freed at once
all the same.
"""

import gc

_THRESHOLDS = (100_000, 20, 50)  # objects since the last collection, and collections until older ones are looked at


def collect_seldom() -> None:
    """For the rest of this process, which is the program's to decide and not the library's."""
    gc.set_threshold(*_THRESHOLDS)
