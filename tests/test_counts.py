"""Parameter counts of the paper and the release, from shapes alone."""

import pytest
from flax import nnx

from piza_jax.errors import PizaError
from piza_jax.models.keys import make_keys
from piza_jax.peft import select
from piza_jax.piza.detector import PizaConfig, PizaDetector


def abstract(**choices) -> PizaDetector:
    config = PizaConfig(**choices)
    return nnx.eval_shape(lambda: PizaDetector(config, rngs=make_keys(0)))


def total(model: nnx.Module, *words: str) -> int:
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return sum(
        int(value.size) for path, value in flat if not words or any(word in "/".join(map(str, path)) for word in words)
    )


@pytest.fixture(scope="module")
def shared_form() -> PizaDetector:
    return abstract(zoom_projection="shared")


def test_plain_detector_has_the_releases_parameters():
    assert total(abstract(adapter="none", history=False)) == 172_977_693


def test_adapters_and_norms_are_the_tables_adapter_plus(shared_form):
    assert total(shared_form, "/adapter1/", "/adapter2/") == 3_164_160
    _, train, _ = select.split(shared_form, "adapter_plus")
    assert select.count(train) == 3_260_224
    norms = [value.size for path, value in nnx.to_flat_state(train) if "adapter" not in "/".join(map(str, path))]
    assert sum(norms) == 96_064


def test_zoom_embedding_and_shared_form(shared_form):
    assert total(shared_form.zoom_embedding) == 131_584
    _, train, _ = select.split(shared_form, "piza_adapter_plus")
    # The history encoder without the duplicate layer that the release stores and never uses.
    assert total(shared_form.history) == 277_490 - 137_504
    assert select.count(train) == 3_260_224 + 131_584 + 139_986  # 3.53M


def test_per_adapter_form_of_the_released_weights():
    model = abstract(zoom_projection="per_adapter", history=False)
    _, train, _ = select.split(model, "piza_adapter_plus")
    assert total(model, "/condition/") == 789_504
    assert select.count(train) == 4_181_312  # 4.18M


def test_full_fine_tuning_trains_everything(shared_form):
    _, train, frozen = select.split(shared_form, "full")
    assert select.count(train) == total(shared_form)
    assert select.count(frozen) == 0


def test_a_parameter_that_no_rule_covers_is_an_error(shared_form):
    class Holder(nnx.Module):
        def __init__(self):
            self.stray = nnx.Linear(2, 2, rngs=make_keys(0))

    with pytest.raises(PizaError, match="no rule of fine-tuning method 'adapter_plus' covers the parameter stray/"):
        select.split(Holder(), "adapter_plus")
    with pytest.raises(PizaError, match="no fine-tuning method 'lorra'"):
        select.is_trainable("lorra", "detector/neck")
