"""The methods that the paper compares on SOREC; by default PIZA-Adapter+: adapters, norms, zoom embedding and history.

Arguments: backbone=swin_t|swin_b|swin_l, train=train_s|train_l, smoke, tpu (bfloat16, layers recomputed), and
peft=full|adapter_plus|coop|lora|vpt|piza_adapter_plus|piza_coop|piza_lora|piza_vpt. The piza ones zoom.
"""

from ml_collections import ConfigDict

from configs import common
from piza_jax.errors import PizaError
from piza_jax.models.config import PRESETS, DetectorConfig
from piza_jax.peft import select
from piza_jax.piza.detector import config_of_method

METHODS = tuple(method for method in select.METHODS if method != "none")


def get_config(argument: str = "") -> ConfigDict:
    defaults = {"backbone": "swin_t", "peft": "piza_adapter_plus", "train": "train_s"}
    values = common.parse_argument(argument, **defaults, tpu=False, smoke=False)
    if values["backbone"] not in PRESETS:
        raise PizaError(f"backbone={values['backbone']!r} is none of {', '.join(PRESETS)}")
    if values["peft"] not in METHODS:
        raise PizaError(f"peft={values['peft']!r} is none of {', '.join(METHODS)}")
    model = config_of_method(values["peft"], DetectorConfig.preset(values["backbone"]))
    config = common.base(model)
    config.peft = values["peft"]
    config.data.split = values["train"]
    if not model.history:
        config.search.max_steps, config.data.stop_fraction = 1, 0.0  # straight from the photo to the target
    if values["tpu"]:
        config.model.detector.update(dtype="bfloat16", remat="layers", scan_layers=True)
    return common.smoke(config) if values["smoke"] else config
