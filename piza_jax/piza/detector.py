"""The detector with what PIZA adds to it: adapters, zoom embedding and box history."""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from piza_jax.errors import PizaError
from piza_jax.models.config import PRESETS, DetectorConfig
from piza_jax.models.denoising import Denoising
from piza_jax.models.grounding_dino import Detections, GroundingDino
from piza_jax.models.text import TextFeatures
from piza_jax.peft import adapter_plus, condition, coop, lora, select, vpt
from piza_jax.piza.embedding import ZoomEmbedding
from piza_jax.piza.history import HistoryEncoder, HistoryReading

ADAPTERS = ("none", "adapter_plus", "coop", "lora", "vpt")
PROJECTIONS = ("none", "shared", "per_adapter")


@dataclass(frozen=True)
class PizaConfig:
    """Detector and PIZA parts.

    Attributes:
        detector: sizes and variant of the detector.
        adapter: "none", "adapter_plus", "coop", "lora" or "vpt".
        adapter_dim: width of the bottleneck of Adapter+.
        lora_rank: rank of LoRA's updates; 6 in all attention projections meets the paper's 1.3M.
        lora_alpha: their scale, before it is divided by the rank.
        context_tokens: learnt context tokens of CoOp.
        condition_dim: hidden width of the network that turns the zoom embedding into a shift of CoOp's text features;
            512 meets the paper's 0.9M.
        visual_prompts: prompts of VPT in each block of the backbone.
        zoom_projection: how the zoom embedding enters: "shared" (the paper's parameter counts: added as it is in the
            image layers of the enhancer, with CoOp through a network to the text features), "per_adapter" (each
            image-side adapter of Adapter+ projects it, as in the released weights) or "none".
        history: whether the box-history encoder exists.
        progress_rounding: step that the progress is rounded to before it is embedded.
    """

    detector: DetectorConfig = field(default_factory=DetectorConfig)
    adapter: str = "adapter_plus"
    adapter_dim: int = 256
    lora_rank: int = 6
    lora_alpha: float = 12.0
    context_tokens: int = 16
    condition_dim: int = 512
    visual_prompts: int = 8
    zoom_projection: str = "shared"
    history: bool = True
    progress_rounding: float = 0.05

    def __post_init__(self):
        """Check the choices that are words, and the sizes of the method."""
        for name, value, allowed in (
            ("adapter", self.adapter, ADAPTERS),
            ("zoom_projection", self.zoom_projection, PROJECTIONS),
        ):
            if value not in allowed:
                raise PizaError(f"model.{name} is {value!r}; choose one of {', '.join(allowed)}")
        if self.zoom_projection == "per_adapter" and self.adapter not in ("none", "adapter_plus"):
            raise PizaError(
                f"model.zoom_projection 'per_adapter' needs model.adapter 'adapter_plus', not {self.adapter!r}; "
                "choose 'shared' or 'none'"
            )
        for name in ("adapter_dim", "lora_rank", "context_tokens", "condition_dim", "visual_prompts"):
            if getattr(self, name) < 1:
                raise PizaError(f"model.{name} is {getattr(self, name)}; it must be at least 1")
        if self.context_tokens > self.detector.bert.max_positions:
            raise PizaError(
                f"model.context_tokens is {self.context_tokens}, more than the text backbone has positions for "
                f"({self.detector.bert.max_positions}); lower it"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict for ``config_from_dict``."""
        return dataclasses.asdict(self)


def _fill(default: Any, values: Mapping[str, Any], place: str) -> Any:
    """A copy of the dataclass ``default`` with ``values`` filled in, nested; unknown names are errors."""
    names = [item.name for item in dataclasses.fields(default)]
    changes = {}
    for name, value in values.items():
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(names)}"
            raise PizaError(f"unknown configuration key {place}.{name}; {hint}")
        current = getattr(default, name)
        if dataclasses.is_dataclass(current):
            value = _fill(current, value, f"{place}.{name}")
        elif isinstance(current, tuple):
            value = tuple(value)
        changes[name] = value
    return dataclasses.replace(default, **changes)


def config_from_dict(values: Mapping[str, Any]) -> PizaConfig:
    """Configuration from a plain nested mapping; ``detector.preset`` names the sizes that the rest overrides.

    Raises:
        PizaError: on an unknown key or preset.
    """
    values = dict(values)
    detector = dict(values.pop("detector", {}))
    preset = detector.pop("preset", "swin_t")
    if preset not in PRESETS:
        raise PizaError(f"unknown model.detector.preset {preset!r}; choose one of {', '.join(PRESETS)}")
    base = _fill(PizaConfig(detector=DetectorConfig.preset(preset)), values, "model")
    return dataclasses.replace(base, detector=_fill(base.detector, detector, "model.detector"))


def config_of_method(method: str, detector: DetectorConfig, **sizes: Any) -> PizaConfig:
    """The model of a fine-tuning method, one of ``select.METHODS``, as the paper compares them.

    Args:
        method: its name.
        detector: what it is put on.
        sizes: fields of PizaConfig in place of the paper's, such as ``adapter_dim``.

    Raises:
        PizaError: if there is no such method.
    """
    if method not in select.METHODS:
        raise PizaError(f"there is no fine-tuning method {method!r}; choose one of {', '.join(select.METHODS)}")
    zooms = method.startswith("piza_")
    adapter = method.removeprefix("piza_")
    return PizaConfig(
        detector=detector,
        adapter=adapter if adapter in ADAPTERS else "none",
        zoom_projection="shared" if zooms else "none",
        history=zooms,
        **sizes,
    )


class PizaDetector(nnx.Module):
    """GroundingDINO that knows how far it has zoomed in. Inputs are those of ``GroundingDino``."""

    def __init__(self, config: PizaConfig, *, rngs: nnx.Rngs, detector: GroundingDino | None = None):
        """Build.

        Args:
            config: what to build.
            rngs: for the new parameters.
            detector: a plain detector of ``config.detector`` to put the method on, in place of a new one.
        """
        self.config = config
        self.detector = GroundingDino(config.detector, rngs=rngs) if detector is None else detector
        self.zoom_embedding = nnx.data(None)
        zooms = config.zoom_projection != "none"
        per_adapter = config.zoom_projection == "per_adapter"
        if config.adapter == "adapter_plus":
            adapter_plus.attach(self.detector, config.adapter_dim, project_condition=per_adapter, rngs=rngs)
        elif config.adapter == "coop":
            coop.attach(self.detector, config.context_tokens, config.condition_dim if zooms else None, rngs=rngs)
        elif config.adapter == "lora":
            lora.attach(self.detector, config.lora_rank, config.lora_alpha, rngs=rngs)
        elif config.adapter == "vpt":
            vpt.attach(self.detector, config.visual_prompts, rngs=rngs)
        if zooms and config.adapter in ("lora", "vpt"):
            condition.attach(self.detector)
        if zooms and config.adapter != "none":
            # Where a projection starts at zero, the embedding must not: the gradient of both would stay zero.
            projected = per_adapter or config.adapter == "coop"
            self.zoom_embedding = ZoomEmbedding(config.detector.dim, start_at_zero=not projected, rngs=rngs)
        self.history = HistoryEncoder(rngs=rngs) if config.history else nnx.data(None)

    def encode_text(self, input_ids: jax.Array, token_mask: jax.Array) -> TextFeatures:
        """Token ids int [B, L] and mask bool [B, L] -> features; run once for each expression."""
        return self.detector.encode_text(input_ids, token_mask)

    def read_history(self, boxes_xyxy: jax.Array, mask: jax.Array) -> HistoryReading:
        """Photo-pixel boxes float32 [B, S, 4], the whole photo first, and mask bool [B, S] -> progress and stop.

        Raises:
            PizaError: if the model was built without a history encoder.
        """
        if self.history is None:
            raise PizaError("this model has no box-history encoder (model.history is off); zoom in training-free mode")
        return self.history(boxes_xyxy, mask)

    def detect(
        self,
        images: jax.Array,
        valid_hw: jax.Array,
        text: TextFeatures,
        progress: jax.Array | None = None,
        denoising: Denoising | None = None,
    ) -> Detections:
        """Detect in one view of each sample.

        Args:
            images: float32 [B, H, W, 3] normalised, zeros outside the content.
            valid_hw: int32 [B, 2] height and width of the content.
            text: from ``encode_text``.
            progress: float32 [B] of the view, or None for a plain detector pass.
            denoising: queries to put in front, in training.
        """
        zoomed = None
        if progress is not None and self.zoom_embedding is not None:
            step = self.config.progress_rounding
            zoomed = self.zoom_embedding(jnp.round(progress / step) * step if step else progress)
        return self.detector(images, valid_hw, text, zoomed, denoising)
