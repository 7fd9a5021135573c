"""From a configuration to what the loop trains: data source, tokenizer, detector, losses, starting weights."""

import io
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from piza_jax.convert.export import check_same_detector
from piza_jax.convert.load import load_source
from piza_jax.data.blind import BlindSource
from piza_jax.data.captions import CaptionConfig
from piza_jax.data.mini_source import MiniPictures, MiniSource
from piza_jax.data.pipeline import Source, train_batches
from piza_jax.data.records import RecordSource, read_annotations
from piza_jax.data.samples import SampleConfig
from piza_jax.data.scenes import draw_scene
from piza_jax.data.search import SearchConfig
from piza_jax.data.tokenize import Tokenizer
from piza_jax.data.tokenizer_files import find_tokenizer
from piza_jax.errors import PizaError
from piza_jax.evaluation.evaluate import measure, predictions
from piza_jax.evaluation.metrics import ALL, summarise
from piza_jax.models.keys import make_keys
from piza_jax.models.params import flatten_state
from piza_jax.peft import select
from piza_jax.piza.detector import PizaConfig, PizaDetector, config_from_dict
from piza_jax.piza.grounding import Grounder
from piza_jax.piza.zoom import zoom_config_of
from piza_jax.shipped import resolve
from piza_jax.training import checkpoint, sharding
from piza_jax.training.loop import FitResult, fit
from piza_jax.training.losses import LossConfig
from piza_jax.training.objective import compute_caption_losses, compute_losses
from piza_jax.training.program import Task
from piza_jax.training.reporting import is_first
from piza_jax.training.towers import compute_tower_losses

TOKENIZER = "tokenizer.json"
TRAINED_TOKENIZER_RECORDS = 5000  # above it, reading every record and photo only for its words would take too long
_GIVE_TOKENIZER = (
    "give --config.data.tokenizer=DIR, the folder with tokenizer.json or vocab.txt of the text backbone "
    "(bert-base-uncased for released weights)"
)
KINDS = ("tfds", "files", "mini", "scenes")
STAGES = ("detector", "towers")

Evaluate = Callable[[PizaDetector, int], Mapping[str, float]]


def train(
    config: ConfigDict,
    workdir: str | os.PathLike[str],
    evaluate: Evaluate | None = None,
    compiled: jax.stages.Compiled | None = None,
) -> FitResult:
    """Train the detector that a configuration describes; continues where workdir has a checkpoint.

    Args:
        config: as configs/common.py lays it out.
        workdir: folder of the run.
        evaluate: (model, step) -> {name: number}, run every config.evaluation.every steps and at the end; by default
            that of make_evaluate, where config.evaluation.every is above 0.
        compiled: see loop.fit.

    Raises:
        PizaError: anything in the configuration, the data or the workdir that cannot be used; see loop.fit.
    """
    return fit(build_task(config, workdir, evaluate), config, workdir, compiled)


def build_task(config: ConfigDict, workdir: str | os.PathLike[str], evaluate: Evaluate | None = None) -> Task:
    """The pieces of a run. Writes workdir/tokenizer.json, and the tokenizer's delimiter ids into config.model."""
    source = open_source(config)
    tokenizer = open_tokenizer(config, source, Path(workdir))
    detector = config.model.detector
    if tokenizer.vocab_size > detector.bert.vocab_size:
        raise PizaError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and model.detector.bert.vocab_size is "
            f"{detector.bert.vocab_size}; raise it, or give the tokenizer that belongs to the text backbone"
        )
    detector.delimiter_ids = tokenizer.delimiter_ids
    model_config = config_from_dict(config.model.to_dict())
    if evaluate is None and config.evaluation.every:
        evaluate = make_evaluate(config, source, tokenizer)
    batches = train_batches(
        source,
        tokenizer,
        caption_config(config) if config.data.get("captions") else sample_config(config),
        batch_size=config.train.batch_size,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_workers=config.data.num_workers,
        expressions_a_photo=config.data.get("expressions_a_photo", 1),
    )
    return Task(
        **model_parts(config, model_config),
        dataset=batches,
        steps_per_epoch=len(source) / config.train.batch_size,
        pretrained=partial(pretrained_parameters, config.pretrained, model_config) if config.pretrained else None,
        evaluate=evaluate,
    )


def model_parts(config: ConfigDict, model_config: PizaConfig) -> dict[str, Any]:
    """What a Task knows of the model alone: make_model, split and loss."""
    return {
        "make_model": lambda: PizaDetector(model_config, rngs=make_keys(config.seed)),
        "split": partial(select.split, method=config.peft, freeze=tuple(config.get("freeze", ()))),
        "loss": partial(_objective(config), config=LossConfig(**config.loss.to_dict())),
    }


def _objective(config: ConfigDict) -> Callable[..., tuple[jax.Array, dict[str, jax.Array]]]:
    stage, captions = config.train.get("stage", "detector"), bool(config.data.get("captions"))
    if stage not in STAGES:
        raise PizaError(f"train.stage={stage!r} is none of {', '.join(STAGES)}")
    if stage == "towers" and not captions:
        raise PizaError("train.stage='towers' learns from captions; give data.captions, as configs/mini.py does")
    if stage == "towers":
        return compute_tower_losses
    return compute_caption_losses if captions else compute_losses


def make_evaluate(config: ConfigDict, source: Source, tokenizer: Tokenizer) -> Evaluate:
    """The default evaluation of a run: SOREC's measures of the whole zoom on records of config.evaluation.split.

    Raises:
        PizaError: records that cannot be opened.
    """
    if config.evaluation.split:
        held_out = config.copy_and_resolve_references()
        with held_out.unlocked():
            held_out.data.split = held_out.data.annotations = config.evaluation.split
            held_out.data.captions = {}
            held_out.data.num_photos = config.evaluation.get("num_photos") or config.data.num_photos
        source = open_source(held_out)
    zoom_config = zoom_config_of(config.to_dict(), mode="piza" if config.model.history else "training_free")
    grounders: list[Grounder] = []

    def evaluate(model: PizaDetector, step: int) -> Mapping[str, float]:
        del step
        if grounders:
            grounders[0].update(model)  # its programs stay compiled
        else:
            spread = sharding.Spread(sharding.mesh_of(config.mesh))
            grounders.append(Grounder(model, tokenizer, zoom_config, config.data.max_tokens, placement=spread))
        found = list(predictions(grounders[0], source, config.evaluation.num_records))
        values = summarise({"": measure(found)})[""][ALL]
        return {name: float(value) for name, value in (values or {}).items()}

    return evaluate


def sample_config(config: ConfigDict) -> SampleConfig:
    """How the records of a configuration become samples."""
    data = config.data
    return SampleConfig(
        canvas_hw=tuple(data.canvas_hw),
        max_tokens=data.max_tokens,
        search=SearchConfig(**config.search.to_dict()),
        stop_fraction=data.stop_fraction,
        scale_range=tuple(data.scale_range),
        scaled_decode=data.get("scaled_decode", False),
    )


def caption_config(config: ConfigDict) -> CaptionConfig:
    """How the pictures of a configuration become captions of several phrases."""
    data = config.data
    return CaptionConfig(
        canvas_hw=tuple(data.canvas_hw),
        max_tokens=data.max_tokens,
        **data.captions.to_dict(),
        scale_range=tuple(data.scale_range),
        scaled_decode=data.get("scaled_decode", False),
    )


def open_source(config: ConfigDict) -> Source:
    """The records that config.data names, with one half of the question hidden where config.data.hide says so.

    Raises:
        PizaError: an unknown kind, a path that the kind needs and that is not given, or records that cannot be read.
    """
    source = _open_source(config)
    hide = config.data.get("hide", "")
    return BlindSource(source, hide) if hide else source


def _open_source(config: ConfigDict) -> Source:
    data = config.data
    if data.kind not in KINDS:
        raise PizaError(f"data.kind={data.kind!r} is none of {', '.join(KINDS)}")
    needed = {"tfds": ("data_dir", "split"), "files": ("annotations", "images"), "mini": ("split",)}.get(data.kind, ())
    absent = [f"--config.data.{name}=..." for name in needed if not data[name]]
    if absent:
        raise PizaError(f"data.kind={data.kind!r} needs {' and '.join(absent)}")
    if data.kind == "tfds":
        import tfds_sorec  # takes seconds to import

        return tfds_sorec.open_split(data.data_dir, data.split, data.get("dataset", "sorec"))
    if data.kind == "files":
        return RecordSource(read_annotations(data.annotations), data.images)
    if data.kind == "mini" and data.get("captions"):
        return MiniPictures(data.split, data.num_photos, data.get("cache_dir", ""))
    if data.kind == "mini":
        return MiniSource(data.split, data.num_photos, normal=data.dataset == "sorec_mini_normal")
    return SceneSource(data.num_photos, config.seed, tuple(data.photo_wh), data.num_objects)


class SceneSource:
    """Drawn scenes as a source of records, encoded in memory."""

    def __init__(self, num_photos: int, seed: int, photo_wh: tuple[int, int], num_objects: int = 8):
        self._records: list[dict[str, Any]] = []
        photos: list[int] = []
        for number in range(num_photos):
            image, records = draw_scene(seed + number, photo_wh, num_objects)
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            self._records += [
                {
                    "image": buffer.getvalue(),
                    "name": f"scene{number}.png",
                    "id": len(self._records) + place,
                    "expression": record.expression,
                    "box_xyxy": np.asarray(record.box_xyxy, np.float32),
                }
                for place, record in enumerate(records)
            ]
            photos += [number] * len(records)
        self.photo_index = np.array(photos, np.int64)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self._records[index]


def open_tokenizer(config: ConfigDict, source: Source, workdir: Path) -> Tokenizer:
    """The run's tokenizer, saved in its workdir.

    It is that of the workdir when the run is resumed, else data.tokenizer, else that of the pretrained run, else one
    trained on the expressions.

    Raises:
        PizaError: a tokenizer that cannot be read, or none where one must be given: for a pretrained file, and for data
            too large to be read once more for its expressions.
    """
    stored = workdir / TOKENIZER
    if checkpoint.latest_step(workdir) is not None and stored.exists():
        return Tokenizer.from_file(stored)
    texts = getattr(source, "expressions", None)
    if config.data.tokenizer:
        tokenizer = find_tokenizer(workdir, config.data.tokenizer)
    elif config.pretrained:
        place = resolve(config.pretrained) if not checkpoint.is_workdir(config.pretrained) else Path(config.pretrained)
        try:
            tokenizer = find_tokenizer(place if place.is_dir() else place.parent)
        except PizaError as error:
            raise PizaError(f"{_GIVE_TOKENIZER}; {error}") from error
    elif texts is None and len(source) > TRAINED_TOKENIZER_RECORDS:
        raise PizaError(
            f"{_GIVE_TOKENIZER}; one is trained on the data only where its expressions can be read without its photos, "
            f"or for at most {TRAINED_TOKENIZER_RECORDS} records"
        )
    else:
        expressions = texts() if texts else [source[index]["expression"] for index in range(len(source))]
        tokenizer = Tokenizer.train(expressions, config.model.detector.bert.vocab_size)
    if is_first():
        workdir.mkdir(parents=True, exist_ok=True)
        tokenizer.save(stored)
    return tokenizer


def pretrained_parameters(
    path: str, model_config: PizaConfig, abstract: Mapping[str, jax.ShapeDtypeStruct]
) -> dict[str, np.ndarray]:
    """Weights to start from: a workdir of an earlier run, or any source that convert.load reads.

    A plain detector may be given where PIZA's parts are wanted too (they then start at random), and one without the
    label embedding of the denoising queries, which is for training only.

    Raises:
        PizaError: nothing that can be read there, or another detector than the configuration's.
    """
    if checkpoint.is_workdir(path):
        model, _ = checkpoint.load_model(path)
    else:
        model = load_source(path).model
    check_same_detector(model.config.detector, model_config.detector, f"pretrained={path}")
    given = flatten_state(nnx.state(model, nnx.Param))
    return {name: np.asarray(value) for name, value in given.items() if not _left_out(name, abstract)}


def _left_out(name: str, abstract: Mapping[str, jax.ShapeDtypeStruct]) -> bool:
    return name.startswith("detector/denoising/") and name not in abstract
