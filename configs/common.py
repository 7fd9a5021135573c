"""What the configurations share: the whole tree of settings, argument parsing, and the mode that shrinks to a CPU."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from piza_jax.data.search import SearchConfig
from piza_jax.errors import PizaError
from piza_jax.models.config import DetectorConfig
from piza_jax.piza.detector import PizaConfig
from piza_jax.piza.zoom_config import defaults_of_training
from piza_jax.training.losses import LossConfig
from piza_jax.training.optim import OptimizerConfig


def parse_argument(argument: str, **defaults: Any) -> dict[str, Any]:
    """Read the text after `FILE.py:`, comma-separated words `name` (a switch) or `name=value`, strictly.

    Args:
        argument: the text, may be empty.
        defaults: every name that is allowed with its default; the default's type is the value's type.

    Raises:
        PizaError: a name that is not among the defaults, or a value of another type.
    """
    values = dict(defaults)
    for word in filter(None, argument.split(",")):
        name, equals, text = word.partition("=")
        if name not in defaults:
            raise PizaError(f"unknown config argument {name!r}; this file takes {', '.join(defaults)}")
        kind = type(defaults[name])
        if kind is bool and not equals:
            values[name] = True
            continue
        try:
            values[name] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (ValueError, KeyError) as error:
            raise PizaError(f"config argument {name!r} takes a {kind.__name__}, not {text!r}") from error
    return values


def base(model: PizaConfig) -> ConfigDict:
    """Every setting with the paper's value (5 epochs of batches of 32 at 2e-4), for the model given."""
    return ConfigDict(
        {
            "seed": 0,
            # Which parameters are trained, a name of piza_jax.peft.select.METHODS: "full", or "adapter_plus", "coop",
            # "lora", "vpt", with or without "piza_" in front; model.adapter has to be that of the method.
            "peft": "piza_adapter_plus",
            # Regular expressions of parameters that stay frozen all the same; ("detector/(backbone|bert)/",) keeps the
            # gradient, and with it memory and time, out of the two backbones, whose norms every method trains.
            "freeze": (),
            # Weights to start from: a folder or file that piza_jax.convert reads; "" starts from random weights.
            "pretrained": "",
            "model": model.to_dict(),
            "data": {
                # "tfds": data_dir, dataset, split; "files": annotations, images; "mini": SOREC-mini drawn as it is read
                # (dataset, split, num_photos scenes); "scenes": a few simple ones.
                "kind": "tfds",
                "dataset": "sorec",  # or any other that tfds_sorec.open_split knows
                "data_dir": "",
                "split": "train_s",
                "annotations": "",
                "images": "",
                "num_photos": 8,
                "num_objects": 8,
                "photo_wh": (640, 480),
                "tokenizer": "",  # folder or tokenizer.json; "" trains one on the data's own expressions
                "max_tokens": 128,  # SOREC's longest expression seen has 65 words and signs
                "canvas_hw": (1024, 1024),
                "scale_range": (0.6, 1.0),  # random size of the content, as part of the canvas
                "stop_fraction": None,  # part of stop samples; None: as often as any other step
                # Fields of data/captions.CaptionConfig: captions of several phrases of one picture, with "mini".
                "captions": {},
                "cache_dir": "",  # where pictures of captions are kept when drawn; "": in the memory of each process
                # Training decodes no more of a JPEG than a view needs: at 1/2, 1/4 or 1/8, and down to its last row.
                "scaled_decode": True,
                "expressions_a_photo": 1,  # so many of one photo follow each other, and it is decoded once for all
                "hide": "",  # "photo" or "expression": what a model learns without it is a leak in the data
                "num_workers": 4,
            },
            "search": dataclasses.asdict(SearchConfig()),
            # How the trained model zooms, fields of piza/zoom_config.py; the values are the release's.
            "zoom": defaults_of_training(),
            "loss": dataclasses.asdict(LossConfig()),
            "train": {
                "batch_size": 32,  # over all devices
                "num_epochs": 5.0,
                "num_steps": 0,  # above 0 it replaces num_epochs
                "log_every": 50,
                "stage": "detector",  # or "towers": backbone and text encoder alone, see training/towers.py
                "initial_scales": (),  # (regular expression, factor on random initial values), the first match counts
            },
            "optimizer": dataclasses.asdict(OptimizerConfig()),
            # Devices along each axis, one of them -1 for the rest: the batch is split over data and fsdp, parameters of
            # at least min_shard_size are stored in shards over fsdp, heads and hidden channels are split over tensor.
            # A CPU is cpu_devices of them, at most one a core; each holds its own copy of what is not sharded.
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1, "min_shard_size": 2**18, "cpu_devices": 1},
            "checkpoint": {"every": 500, "keep": 3},
            "evaluation": {
                "every": 1000,  # steps between evaluations, one more is at the end; 0: none at all
                "num_records": 256,  # evenly spread over the split; 0: all
                "num_photos": 0,  # scenes of the split where they are drawn; 0: as in training
                "split": "val",  # or an annotation file; "" evaluates on the training records
            },
        }
    )


def tiny_model(**changes: Any) -> PizaConfig:
    """The model of the records, scenes and smoke configurations: every part of the real one, small."""
    return PizaConfig(detector=DetectorConfig.preset("tiny"), adapter="adapter_plus", adapter_dim=32, **changes)


def from_scratch() -> ConfigDict:
    """A tiny model with random weights that learns a few records by heart: all of it trained, no random sizes."""
    config = base(tiny_model())
    config.peft = "full"
    config.evaluation.update(every=0, num_records=0, split="")
    config.data.update(max_tokens=64, num_workers=0, scale_range=(1.0, 1.0), stop_fraction=0.2)
    config.loss.class_cost = 0.0  # each target goes to the query that lies nearest, which gives the class head its task
    config.train.batch_size = 8
    config.optimizer.update(
        learning_rate=1e-3,
        rate_factors=(("^history/", 4.0),),
        b2=0.99,
        # Clipping to 0.1 makes the gradients of the text side so small that 1e-8 would swallow them.
        eps=1e-12,
        schedule="cosine",
        warmup_steps=20,
    )
    return config


def smoke(config: ConfigDict) -> ConfigDict:
    """Shrink a configuration until it runs on a CPU in a minute: tiny model, drawn scenes, four steps."""
    model = config.model
    tiny = tiny_model().to_dict()
    config.model = ConfigDict({**model.to_dict(), **{name: tiny[name] for name in ("detector", "adapter_dim")}})
    config.data.update(kind="scenes", num_photos=2, tokenizer="", canvas_hw=(128, 128), max_tokens=64, num_workers=0)
    config.pretrained = ""
    config.train.update(batch_size=8, num_steps=4, log_every=1)
    config.checkpoint.every = 2
    config.evaluation.update(every=4, num_records=2, split="")
    config.optimizer.warmup_steps = 0
    return config
