"""The paper's full fine-tuning: every parameter is trained, straight from the photo to the target.

Arguments: backbone=swin_t|swin_b|swin_l, train=train_s|train_l, smoke.
"""

from ml_collections import ConfigDict

from configs import common
from piza_jax.errors import PizaError
from piza_jax.models.config import PRESETS, DetectorConfig
from piza_jax.piza.detector import PizaConfig


def get_config(argument: str = "") -> ConfigDict:
    values = common.parse_argument(argument, backbone="swin_t", train="train_s", smoke=False)
    if values["backbone"] not in PRESETS:
        raise PizaError(f"backbone={values['backbone']!r} is none of {', '.join(PRESETS)}")
    detector = DetectorConfig.preset(values["backbone"])
    config = common.base(PizaConfig(detector=detector, adapter="none", history=False))
    config.peft = "full"
    config.data.split = values["train"]
    config.search.max_steps, config.data.stop_fraction = 1, 0.0
    return common.smoke(config) if values["smoke"] else config
