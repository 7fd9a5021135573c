"""What the examples of both data sets hold: photos, and expressions that name their photo by its number."""

import numpy as np
import tensorflow_datasets.public_api as tfds


def features(photos: bool) -> tfds.features.FeaturesDict:
    """Features of a photo with the bytes of its file as they are, or of an expression with its box, xyxy pixels."""
    text = tfds.features.Text()
    if photos:
        encoded = tfds.features.Tensor(shape=(), dtype=np.object_)
        return tfds.features.FeaturesDict({"name": text, "width": np.int32, "height": np.int32, "image": encoded})
    box = tfds.features.Tensor(shape=(4,), dtype=np.float32)
    return tfds.features.FeaturesDict(
        {"id": np.int64, "name": text, "photo": np.int32, "expression": text, "box_xyxy": box}
    )
