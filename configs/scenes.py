"""A few drawn scenes and a tiny model from scratch: the whole path in about three minutes on a CPU, no download.

Arguments: smoke.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    values = common.parse_argument(argument, smoke=False)
    config = common.from_scratch()
    config.data.update(kind="scenes", num_photos=2, num_objects=4, canvas_hw=(128, 128))
    config.train.update(num_steps=400, log_every=10)
    config.checkpoint.every = 100
    return common.smoke(config) if values["smoke"] else config
