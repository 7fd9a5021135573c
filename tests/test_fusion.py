"""Bi-attention gives the same whether the image side is projected or the tokens are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from piza_jax.models.config import DetectorConfig
from piza_jax.models.enhancer import BiAttention
from piza_jax.peft.lora import LoraLinear

CELLS, TOKENS = 40, 6
# Through L tokens it takes 16 * 8 * L products a cell, otherwise 64 * (16 + L).
CONFIG = {"dim": 16, "fusion_heads": 8, "fusion_dim": 64}


def attention(updated, mask_text):
    config = DetectorConfig.preset("tiny", **CONFIG, mask_fusion_text=mask_text)
    module = BiAttention(config, dtype=jnp.float32, rngs=nnx.Rngs(0))
    for number, name in enumerate(("image_query", "text_query", "image_value", "text_value", "image_out", "text_out")):
        layer = getattr(module, name)
        layer.bias[...] = jax.random.normal(jax.random.key(number), layer.bias.shape)
        if updated:
            layer = LoraLinear(layer, 3, 1.0, rngs=nnx.Rngs(number))
            layer.lora_b[...] = jax.random.normal(jax.random.key(10 + number), layer.lora_b.shape)
            setattr(module, name, layer)
    return module


def plain(module, image, text, image_mask, token_mask):
    """The layer as it is written down, one head after another."""
    out_image, out_text = [], []
    query, value = module.image_query(image), module.image_value(image)
    key, text_value = module.text_query(text), module.text_value(text)
    for part in np.split(np.arange(query.shape[-1]), module.heads):
        scores = query[..., part] @ jnp.swapaxes(key[..., part], 1, 2) * len(part) ** -0.5  # [B, N, L]
        to_image = jnp.where(token_mask[:, None], scores, -jnp.inf) if module.mask_text else scores
        to_text = jnp.where(image_mask[..., None], scores, -jnp.inf)
        out_image.append(jax.nn.softmax(to_image, axis=2) @ text_value[..., part])
        out_text.append(jnp.swapaxes(jax.nn.softmax(to_text, axis=1), 1, 2) @ value[..., part])
    return module.image_out(jnp.concatenate(out_image, -1)), module.text_out(jnp.concatenate(out_text, -1))


@pytest.mark.parametrize("tokens", [TOKENS, 200], ids=["few tokens", "many tokens"])
@pytest.mark.parametrize("mask_text", [False, True])
@pytest.mark.parametrize("updated", [False, True], ids=["plain", "LoRA"])
def test_values_and_gradients_are_those_of_the_layer_as_it_is_written_down(updated, mask_text, tokens):
    module, keys = attention(updated, mask_text), jax.random.split(jax.random.key(1), 4)
    image, text = jax.random.normal(keys[0], (2, CELLS, 16)), jax.random.normal(keys[1], (2, tokens, 16))
    masks = jnp.arange(CELLS) < jnp.array([[30], [CELLS]]), jnp.arange(tokens) < jnp.array([[4], [tokens]])
    wanted = jax.random.normal(keys[2], (2, CELLS, 16)), jax.random.normal(keys[3], (2, tokens, 16))
    graph, state = nnx.split(module)

    def loss(call):
        def value(state, image, text):
            outputs = call(nnx.merge(graph, state), image, text, *masks)
            return sum(jnp.vdot(one, other) for one, other in zip(outputs, wanted, strict=True)), outputs

        return jax.value_and_grad(value, argnums=(0, 1, 2), has_aux=True)(state, image, text)

    found, expected = (loss(call) for call in (lambda module, *rest: module(*rest), plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), found, expected)


@pytest.mark.parametrize(("tokens", "through"), [(TOKENS, True), (200, False)])
def test_the_cheaper_way_is_taken(tokens, through):
    module = attention(False, False)
    inputs = (
        jnp.zeros((1, CELLS, 16)),
        jnp.zeros((1, tokens, 16)),
        jnp.ones((1, CELLS), bool),
        jnp.ones((1, tokens), bool),
    )
    shapes = {eqn.outvars[0].aval.shape for eqn in jax.make_jaxpr(lambda *rest: module(*rest))(*inputs).eqns}
    assert ((1, CELLS, 64) not in shapes) == through
