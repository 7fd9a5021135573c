"""piza-mini: a small model of the same code that learns SOREC-mini's drawn streets on a CPU.

Arguments: peft=none pre-trains the base on the normal variant, which is drawn as it is read: its towers from random
weights (stage=towers), then all of it from those on captions (--config.pretrained=DIR), on captions that are mostly
sentences about what stands beside what (stage=relations), and on one sentence a picture in pictures of many sizes
(stage=sentences). Any other peft, as in configs/piza_sorec.py, fine-tunes a base (--config.pretrained=DIR) on the small
targets of a data set that `python -m tfds_sorec.build_mini` built. train=train_s|train_l, smoke.
"""

from ml_collections import ConfigDict

from configs import common
from piza_jax.errors import PizaError
from piza_jax.models.config import DetectorConfig
from piza_jax.peft import select
from piza_jax.piza.detector import config_of_method
from piza_jax.training.towers import TOWERS

# Smaller than the paper's by as much as the detector is; the trainable parts stay below 5% of it.
SIZES = {"adapter_dim": 16, "lora_rank": 4, "lora_alpha": 8.0, "context_tokens": 8, "condition_dim": 64}


def get_config(argument: str = "") -> ConfigDict:
    values = common.parse_argument(argument, peft="piza_adapter_plus", train="train_s", stage="detector", smoke=False)
    if values["peft"] not in select.METHODS:
        raise PizaError(f"peft={values['peft']!r} is none of {', '.join(select.METHODS)}")
    config = _base(values["peft"])
    if values["peft"] == "none":
        _pretrain(config, values["stage"])
    else:
        _fine_tune(config, values["peft"], values["train"])
    return common.smoke(config) if values["smoke"] else config


def _base(method: str) -> ConfigDict:
    config = common.base(config_of_method(method, DetectorConfig.preset("mini"), **SIZES))
    config.data.update(num_workers=0, scale_range=(0.8, 1.0))
    config.train.update(batch_size=16, log_every=25)
    config.loss.class_cost = 0.0  # each target goes to the query that lies nearest, which gives the class head its task
    config.loss.cell_weight = 2.0
    config.zoom.stop_threshold = 0.5
    config.mesh.cpu_devices = 2
    config.optimizer.update(learning_rate=1e-3, rate_factors=(), b2=0.99, eps=1e-12, schedule="cosine", warmup_steps=50)
    return config


def _pretrain(config: ConfigDict, stage: str) -> None:
    """All of it, on captions of several phrases for each picture with targets of ordinary size."""
    config.peft = "full"
    config.data.update(kind="mini", dataset="sorec_mini_normal", split="train", num_photos=12000)
    config.data.update(canvas_hw=(120, 160), max_tokens=96)
    config.data.captions = ConfigDict({"max_boxes": 16, "min_phrases": 4, "max_phrases": 12, "sentence_weight": 1.0})
    config.data.captions.mentions = True
    config.search.max_steps = 1
    config.train.update(num_steps=2500, log_every=50)
    config.checkpoint.every = 150
    config.evaluation.update(every=1250, num_records=256, num_photos=100, split="val")
    if stage in ("relations", "sentences"):
        config.data.canvas_hw = (192, 256)
        config.optimizer.update(learning_rate=6e-4, rate_factors=((r"/bert/", 0.3),))
        config.evaluation.every = 0
        if stage == "relations":
            config.data.captions.sentence_weight = 4.0
            config.train.num_steps = 2000
        else:
            config.data.captions = ConfigDict()
            config.data.update(num_photos=9000, max_tokens=48, stop_fraction=0.0, scale_range=(0.35, 1.0))
            config.train.update(batch_size=64, num_steps=1200)
        return
    config.train.stage = stage
    if stage == "towers":
        config.train.update(batch_size=32, num_steps=500)
        config.optimizer.rate_factors = ((TOWERS, 1.0), ("", 0.0))
        # The enhancer starts as a small change to what the towers agree on.
        config.train.initial_scales = ((r"enhancer/layers/\d+/(text|image)/(attention/out|ffn/layers/1)/kernel", 0.2),)
        config.evaluation.every = 0
    else:
        config.optimizer.rate_factors = ((r"/bert/", 0.1),)


def _fine_tune(config: ConfigDict, method: str, split: str) -> None:
    """One zoom step a sample on the small targets, as in the paper."""
    config.peft = method
    # Four photo pixels in one of the canvas: the first look tells kinds and colours of most things.
    config.data.update(kind="tfds", dataset="sorec_mini", split=split, canvas_hw=(384, 512), max_tokens=48)
    config.data.scale_range = (1.0, 1.0)  # as large as views are looked at
    config.loss.aim_px = 8.0  # a cell of the finest level
    if "coop" in method:
        config.optimizer.learning_rate = 1e-2  # a few vectors of a frozen model learn next to nothing at 1e-3
    elif "adapter_plus" in method:
        config.optimizer.learning_rate = 3e-3  # 6e-3 was no better; not tried in other methods
    if not config.model.history:
        config.search.max_steps, config.data.stop_fraction = 1, 0.0  # straight from the photo to the target
    else:
        config.data.stop_fraction = 0.15  # they teach the small history network alone
    config.train.update(batch_size=8, num_steps=1200)  # many small steps learn more than few large ones
    config.checkpoint.every = 400
    config.evaluation.update(every=0)
