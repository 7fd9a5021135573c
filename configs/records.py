"""A tiny model, trained from scratch on a handful of records of your own until it grounds them, on a CPU.

Give --config.data.annotations=FILE.json --config.data.images=DIR. Arguments: smoke.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    values = common.parse_argument(argument, smoke=False)
    config = common.base(common.tiny_model())
    config.peft = "full"
    config.data.update(kind="files", canvas_hw=(256, 256), max_tokens=64, num_workers=0, scale_range=(1.0, 1.0))
    config.train.update(batch_size=8, num_steps=1500, log_every=20)
    config.optimizer.update(learning_rate=4e-4, rate_factors=(), schedule="cosine", warmup_steps=50)
    config.checkpoint.every = 250
    return common.smoke(config) if values["smoke"] else config
