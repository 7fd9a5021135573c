"""The paper's PIZA-Adapter+ on SOREC: GroundingDINO with trained adapters, norms, zoom embedding and history.

Arguments: backbone=swin_t|swin_b|swin_l, peft=piza_adapter_plus|adapter_plus, train=train_s|train_l, smoke.
"""

from ml_collections import ConfigDict

from configs import common
from piza_jax.errors import PizaError
from piza_jax.models.config import PRESETS, DetectorConfig
from piza_jax.piza.detector import PizaConfig

METHODS = ("piza_adapter_plus", "adapter_plus")


def get_config(argument: str = "") -> ConfigDict:
    values = common.parse_argument(argument, backbone="swin_t", peft="piza_adapter_plus", train="train_s", smoke=False)
    if values["backbone"] not in PRESETS:
        raise PizaError(f"backbone={values['backbone']!r} is none of {', '.join(PRESETS)}")
    if values["peft"] not in METHODS:
        raise PizaError(f"peft={values['peft']!r} is none of {', '.join(METHODS)}")
    zooms = values["peft"] == "piza_adapter_plus"
    projection = "shared" if zooms else "none"
    model = PizaConfig(
        detector=DetectorConfig.preset(values["backbone"]),
        adapter="adapter_plus",
        zoom_projection=projection,
        history=zooms,
    )
    config = common.base(model)
    config.peft = values["peft"]
    config.data.split = values["train"]
    if not zooms:
        config.search.max_steps, config.data.stop_fraction = 1, 0.0  # straight from the photo to the target
    return common.smoke(config) if values["smoke"] else config
