"""What a detector says of an object beyond its box -> the fields of a detection.

The outputs `masks` and `heatmaps` are of some candidates, which `instances` names; `coefficients` and `corners` of all.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from vision_serving.errors import InferenceError
from vision_serving.geometry import ImageGeometry, SizeHW
from vision_serving.options import DetectionOptions, MaskOptions
from vision_serving.predictions import (
    Detection,
    Keypoint,
    KeypointDetection,
    MaskDetection,
    OrientedDetection,
    PolygonDetection,
)
from vision_serving.results.masks import PlacedMask, cut_mask, encode_rle, place_mask, trace_polygons
from vision_serving.results.postprocessing import Candidates

InstanceValues = Sequence[Tensor | None]  # of each detection; None where the model itself would not answer its box


def add_instances(
    detections: tuple[Detection, ...],
    candidates: Candidates,
    outputs: Mapping[str, Tensor],
    index: int,
    geometry: ImageGeometry,
    options: DetectionOptions,
) -> tuple[Detection, ...]:
    """Add masks or keypoints to image `index`'s detections; `candidates` are in their order. Raises InferenceError."""
    name = next((name for name in FIELDS if name in outputs), None)
    if name is None or not detections:
        return detections
    return FIELDS[name](detections, read_values(outputs, index, name, candidates), candidates.boxes, geometry, options)


def read_values(outputs: Mapping[str, Tensor], index: int, name: str, candidates: Candidates) -> InstanceValues:
    """Return image `index`'s value of an output for each candidate. Raises InferenceError."""
    rows = torch.full_like(candidates.class_ids, -1) if candidates.rows is None else candidates.rows
    values = outputs[name][index]
    if "instances" in outputs:
        return take_values(values, outputs["instances"][index], rows)
    found = values[rows].float()
    if name == "coefficients":
        prototypes = outputs["prototypes"][index].float()
        found = (found @ prototypes.flatten(1)).reshape(-1, *prototypes.shape[1:])
    if not torch.isfinite(found).all():
        raise InferenceError(f"the model gave {name} that are not finite for this image")
    return list(found)


def take_values(values: Tensor, instances: Tensor, rows: Tensor) -> InstanceValues:
    """Take from values (D, ...) those of `rows`. instances: (D,) the candidate that each belongs to, or -1."""
    slots = {row: slot for slot, row in enumerate(instances.tolist()) if row >= 0}
    wanted = [slots.get(row) for row in rows.tolist()]
    found = [None if slot is None else values[slot].float() for slot in wanted]
    if not all(torch.isfinite(value).all() for value in found if value is not None):
        raise InferenceError("the model gave masks or keypoints that are not finite for this image")
    return found


def add_masks(
    detections: tuple[Detection, ...],
    masks: InstanceValues,
    boxes: Tensor,
    geometry: ImageGeometry,
    options: DetectionOptions,
) -> tuple[Detection, ...]:
    """Return each in the form that the request asks for. masks: (H, W) over the box."""
    source_boxes = to_source_points(boxes.reshape(-1, 2), geometry).reshape(-1, 4)
    return encode_masks(detections, masks, source_boxes, place_mask, geometry.source_hw, options)


def add_prototype_masks(
    detections: tuple[Detection, ...],
    logits: InstanceValues,
    boxes: Tensor,
    geometry: ImageGeometry,
    options: DetectionOptions,
) -> tuple[Detection, ...]:
    """Return each in the form that the request asks for. logits: (H, W) over all of the model's pixels."""
    assert geometry.model_hw is not None
    ends = to_source_points(boxes.new_tensor([[0, 0], geometry.model_hw[::-1]]), geometry).flatten()

    def cut(mask: Tensor, box: Tensor) -> PlacedMask:
        return cut_mask(mask, ends, box)

    return encode_masks(detections, logits, geometry.to_source(boxes), cut, geometry.source_hw, options)


def encode_masks(
    detections: tuple[Detection, ...],
    masks: InstanceValues,
    source_boxes: Tensor,
    place: Callable[[Tensor, Tensor], PlacedMask],
    source_hw: SizeHW,
    options: DetectionOptions,
) -> tuple[Detection, ...]:
    """Return each in the form that the request asks for. place: what makes a mask of the image, given its box there."""
    assert isinstance(options, MaskOptions)
    if options.mask_format == "none":
        return detections
    encode = MASK_DETECTIONS[options.mask_format]
    return tuple(
        encode(detection, None if mask is None else place(mask, box), source_hw)
        for detection, mask, box in zip(detections, masks, source_boxes, strict=True)
    )


def add_corners(
    detections: tuple[Detection, ...],
    corners: InstanceValues,
    _: Tensor,
    geometry: ImageGeometry,
    __: DetectionOptions,
) -> tuple[Detection, ...]:
    """Return each with its corners in source pixels, to a hundredth, also beyond the image."""
    points = [to_source_points(values.reshape(4, 2), geometry).double() for values in corners if values is not None]
    return tuple(
        OrientedDetection(**vars(detection), corners=tuple(each.round(decimals=2).flatten().tolist()))
        for detection, each in zip(detections, points, strict=True)
    )


def with_run_lengths(detection: Detection, mask: PlacedMask | None, image_hw: SizeHW) -> MaskDetection:
    return MaskDetection(**vars(detection), mask=None if mask is None else encode_rle(mask, image_hw))


def with_polygons(detection: Detection, mask: PlacedMask | None, image_hw: SizeHW) -> PolygonDetection:
    return PolygonDetection(**vars(detection), polygons=None if mask is None else trace_polygons(mask, image_hw))


def add_keypoints(
    detections: tuple[Detection, ...],
    heatmaps: InstanceValues,
    boxes: Tensor,
    geometry: ImageGeometry,
    options: DetectionOptions,
) -> tuple[Detection, ...]:
    return tuple(
        KeypointDetection(
            **vars(detection), keypoints=None if values is None else read_keypoints(values, box, geometry)
        )
        for detection, values, box in zip(detections, heatmaps, boxes, strict=True)
    )


def read_keypoints(heatmaps: Tensor, box_xyxy: Tensor, geometry: ImageGeometry) -> tuple[Keypoint, ...]:
    """Read x and y in source pixels, to a hundredth, and the score in [0, 1]. box_xyxy: in model pixels."""
    found = locate_keypoints(heatmaps, box_xyxy)
    points = to_source_points(found[:, :2], geometry).double().round(decimals=2).tolist()
    scores = found[:, 2].double().sigmoid().round(decimals=6).tolist()
    return tuple((x, y, score) for (x, y), score in zip(points, scores, strict=True))


def locate_keypoints(heatmaps: Tensor, box_xyxy: Tensor) -> Tensor:
    """Return where each heatmap is highest: (P, 3) of x and y in model pixels, and the score there.

    heatmaps: (P, H, W) over the box (4,) in model pixels. Equals torchvision.models.detection.roi_heads.
    heatmaps_to_keypoints: the heatmaps are enlarged to the whole pixels of the box.
    """
    size = (box_xyxy[2:] - box_xyxy[:2]).clamp(min=1)
    width, height = (int(side) for side in size.ceil())
    enlarged = functional.interpolate(heatmaps.unsqueeze(1), size=(height, width), mode="bicubic").flatten(1)
    best = enlarged.argmax(dim=1, keepdim=True)
    pixels = torch.cat((best % width, torch.div(best, width, rounding_mode="floor")), dim=1)
    points = (pixels + 0.5) * (size / size.ceil()) + box_xyxy[:2]
    return torch.cat((points, enlarged.gather(1, best)), dim=1)


def to_source_points(points_xy: Tensor, geometry: ImageGeometry) -> Tensor:
    """Move points (P, 2) from model pixels to source pixels, also beyond the image. A mask keeps its box."""
    offset, scale = (points_xy.new_tensor(pair[::-1]) for pair in (geometry.offset_hw, geometry.scale_hw))
    return (points_xy - offset) / scale + points_xy.new_tensor(geometry.seen[:2])


MASK_DETECTIONS: dict[str, Callable[[Detection, PlacedMask | None, SizeHW], Detection]] = {
    "rle": with_run_lengths,
    "polygons": with_polygons,
}
FIELDS: dict[str, Callable[..., tuple[Detection, ...]]] = {
    "masks": add_masks,
    "heatmaps": add_keypoints,
    "coefficients": add_prototype_masks,
    "corners": add_corners,
}
