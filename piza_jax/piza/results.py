"""A single pass as a grounding; the types of results are those of ``piza_jax.results``."""

import numpy as np

from piza_jax.piza.single_pass import Look
from piza_jax.results import Alternative, Box, Grounding, Step, as_box, of_zoom

__all__ = ["Alternative", "Box", "Grounding", "Step", "of_look", "of_zoom"]


def of_look(look: Look, photo: np.ndarray, expression: str, no_target_threshold: float = 0.0) -> Grounding:
    """A single pass as a zoom of one step, the whole photo; the path score is its score."""
    box, score = as_box(look.box), float(look.score)
    whole = (0.0, 0.0, float(photo.shape[1]), float(photo.shape[0]))
    step = Step(whole, box, score, progress=0.0, stop_probability=1.0)
    return Grounding(expression, box, score, (step,), path_score=score, no_target=score < no_target_threshold)
