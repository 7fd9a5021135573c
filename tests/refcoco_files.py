"""A few drawn photos with expressions in the forms in which RefCOCO, RefCOCO+ and RefCOCOg are handed round."""

import json
import pickle
from pathlib import Path

from piza_jax.data.scenes import draw_scene


def photo_name(number: int) -> str:
    """As COCO has it."""
    return f"COCO_train2014_{number:012d}.jpg"


def draw_photos(folder: Path, count: int) -> None:
    """Photos 0 .. count - 1 of 320 x 240 pixels."""
    folder.mkdir(parents=True)
    for number in range(count):
        draw_scene(number, (320, 240), 4)[0].save(folder / photo_name(number))


def write_mdetr(folder: Path, stem: str, splits: dict[str, list[int]]) -> None:
    """One file for each split; four expressions for each photo named, the first of them in capitals."""
    for split, numbers in splits.items():
        images, annotations = [], []
        for number in numbers:
            for place, record in enumerate(draw_scene(number, (320, 240), 4)[1]):
                x0, y0, x1, y1 = record.box_xyxy
                image = {"file_name": photo_name(number), "height": 240, "width": 320, "id": 10 * number + place}
                words = record.expression if place else record.expression.upper()
                images.append({**image, "original_id": number, "caption": words, "dataset_name": stem})
                box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "category_id": 1}
                annotations.append({**box, "id": 500 + len(annotations), "image_id": image["id"], "iscrowd": 0})
        path = folder / f"finetune_{stem}_{split}.json"
        path.write_text(json.dumps({"info": {}, "images": images, "annotations": annotations, "categories": []}))


def write_refer(folder: Path, stem: str, splits: dict[str, list[int]], refs: str = "refs(unc).p") -> None:
    """The same in refer's form, each target with a second sentence, pickled as Python 2 did."""
    images, annotations, entries = [], [], []
    for split, numbers in splits.items():
        for number in numbers:
            images.append({"id": number, "file_name": photo_name(number), "height": 240, "width": 320})
            for record in draw_scene(number, (320, 240), 4)[1]:
                x0, y0, x1, y1 = record.box_xyxy
                box = {"id": 500 + len(annotations), "image_id": number, "bbox": [x0, y0, x1 - x0, y1 - y0]}
                annotations.append(box)
                texts = (record.expression.lower(), f"the thing {record.expression.split()[1]}")
                sentences = [
                    {"sent_id": 2 * len(entries) + place, "sent": text, "raw": text, "tokens": text.split()}
                    for place, text in enumerate(texts)
                ]
                ids = {"ref_id": len(entries), "ann_id": box["id"], "image_id": number, "category_id": 1}
                cut = f"{photo_name(number)[:-4]}_{len(entries)}.jpg"
                entries.append({**ids, "split": split, "sentences": sentences, "file_name": cut})
    place = folder / stem
    place.mkdir(parents=True, exist_ok=True)
    (place / "instances.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    (place / refs).write_bytes(pickle.dumps(entries, protocol=0))
