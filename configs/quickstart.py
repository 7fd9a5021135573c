"""A few drawn scenes and a tiny model from scratch: the whole path in about three minutes on a CPU, no download.

Arguments: smoke.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    values = common.parse_argument(argument, smoke=False)
    config = common.base(common.tiny_model())
    config.peft = "full"
    config.data.update(
        kind="scenes", num_photos=4, canvas_hw=(128, 128), max_tokens=64, num_workers=0, scale_range=(1.0, 1.0)
    )
    config.train.update(batch_size=8, num_steps=300, log_every=10)
    config.optimizer.update(learning_rate=4e-4, rate_factors=(), schedule="cosine", warmup_steps=20)
    config.checkpoint.every = 100
    return common.smoke(config) if values["smoke"] else config
