"""LoRA (Hu et al. 2022) on every attention projection of the detector."""

import jax
import jax.numpy as jnp
from flax import nnx

from piza_jax.models.enhancer import BiAttention
from piza_jax.models.grounding_dino import GroundingDino
from piza_jax.models.layers import Attention, DeformableAttention
from piza_jax.models.swin import WindowAttention

# Where a deformable attention samples stays as it was trained: its two small layers run in float32 and are left alone.
PLACES: dict[type[nnx.Module], tuple[str, ...]] = {
    WindowAttention: ("qkv", "out"),
    Attention: ("query", "key", "value", "out"),
    BiAttention: ("image_query", "text_query", "image_value", "text_value", "image_out", "text_out"),
    DeformableAttention: ("value", "out"),
}


class LoraLinear(nnx.Linear):
    """A dense layer with a low-rank update: x W + b + (alpha / rank) x A B (Hu et al. 2022, equation 3).

    It holds the very parameters of the layer that it stands for, under their names, beside ``lora_a`` [inputs, rank]
    and ``lora_b`` [rank, outputs]. B starts at zero, so that the output starts unchanged.
    """

    def __init__(self, base: nnx.Linear, rank: int, alpha: float, *, rngs: nnx.Rngs):
        zeros = nnx.initializers.zeros  # of arrays that are replaced in the next line
        super().__init__(
            base.in_features,
            base.out_features,
            use_bias=base.use_bias,
            dtype=base.dtype,
            kernel_init=zeros,
            rngs=rngs,
        )
        self.kernel, self.bias = base.kernel, base.bias
        self.scaling = alpha / rank
        init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # U(-1, 1) / sqrt(inputs)
        self.lora_a = nnx.Param(init(rngs.params(), (base.in_features, rank)))
        self.lora_b = nnx.Param(jnp.zeros((rank, base.out_features)))

    def __call__(self, inputs: jax.Array, out_sharding=None) -> jax.Array:
        """[..., inputs] -> [..., outputs]."""
        x, a, b = self.promote_dtype((inputs, self.lora_a[...], self.lora_b[...]), dtype=self.dtype)
        return super().__call__(inputs, out_sharding) + self.scaling * ((x @ a) @ b)

    def whole_kernel(self) -> jax.Array:
        """The kernel [inputs, outputs] with the update in it."""
        return self.kernel[...] + self.scaling * (self.lora_a[...] @ self.lora_b[...])


def attach(detector: GroundingDino, rank: int, alpha: float, *, rngs: nnx.Rngs) -> None:
    """Give each attention of backbone, BERT, enhancer and decoder low-rank updates of its projections (``PLACES``)."""
    for module in [module for _, module in nnx.iter_modules(detector) if type(module) in PLACES]:
        for name in PLACES[type(module)]:
            setattr(module, name, LoraLinear(getattr(module, name), rank, alpha, rngs=rngs))
