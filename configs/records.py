"""A tiny model, trained from scratch on a handful of records of your own until it grounds them, on a CPU.

Give --config.data.annotations=FILE.json --config.data.images=DIR. Arguments: smoke.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    values = common.parse_argument(argument, smoke=False)
    config = common.from_scratch()
    config.data.update(kind="files", canvas_hw=(256, 256))
    config.train.update(num_steps=600, log_every=20)
    config.checkpoint.every = 200
    return common.smoke(config) if values["smoke"] else config
