"""Trainable parameters of each fine-tuning method beside the paper's table, from shapes alone.

Run it by `python -m benchmarks.peft_counts`; it needs no weights and no memory for any.
"""

from flax import nnx

from piza_jax.models.config import DetectorConfig
from piza_jax.models.grounding_dino import GroundingDino
from piza_jax.models.keys import make_keys
from piza_jax.peft import select
from piza_jax.piza.detector import PizaDetector, config_of_method

# Millions, of the table of results (Swin-T, BERT-base); the paper has no VPT.
PAPER = {
    "full": 173.0,
    "coop": 0.1,
    "piza_coop": 0.9,
    "lora": 1.3,
    "piza_lora": 1.5,
    "adapter_plus": 3.3,
    "piza_adapter_plus": 3.5,
    "vpt": None,
    "piza_vpt": None,
}


def trainable_counts(methods: tuple[str, ...] = tuple(PAPER)) -> dict[str, int]:
    """{method: number of trainable parameters} with Swin-T and BERT-base."""
    config = DetectorConfig.preset("swin_t")
    plain = nnx.eval_shape(lambda: GroundingDino(config, rngs=make_keys(0)))
    counts = {}
    for method in methods:

        def put_on(detector: GroundingDino, method: str = method) -> PizaDetector:
            return PizaDetector(config_of_method(method, config), rngs=make_keys(0), detector=detector)

        _, train, _ = select.split(nnx.eval_shape(put_on, nnx.clone(plain)), method)
        counts[method] = select.count(train)
    return counts


def main() -> None:
    """Print the table."""
    print("| method | trainable | in millions | paper |\n|---|---|---|---|")
    for method, count in trainable_counts().items():
        paper = "-" if PAPER[method] is None else f"{PAPER[method]}M"
        print(f"| {method} | {count:,} | {count / 1e6:.1f}M | {paper} |")


if __name__ == "__main__":
    main()
