"""The paper's full fine-tuning: every parameter is trained, straight from the photo to the target.

The same as configs/piza_sorec.py:peft=full. Its arguments but for peft: backbone, train, smoke, tpu.
"""

from ml_collections import ConfigDict

from configs import common, piza_sorec


def get_config(argument: str = "") -> ConfigDict:
    values = common.parse_argument(argument, backbone="swin_t", train="train_s", tpu=False, smoke=False)
    return piza_sorec.get_config(",".join(f"{name}={value}" for name, value in {**values, "peft": "full"}.items()))
