"""What the published objective of AMD says of true and of learned regions: its value on real pairs of frames.

    python benchmarks/amd_objective.py DAVIS --model amd_quality/models/photometric-default-384-0

Whole frames at the size of the motion pathway, pairs from all over each sequence. Rows:

* rest: nothing moves.
* one motion: all moves by the median of the optical flow (DIS).
* truth: the object and the rest move by the median of the flow in each. The masks are read for this row alone.
* regions: those that were learned, each by the median of the flow in it, the largest share in every pixel.
* network: the learned regions, moved as the network itself says.
* flow: every pixel moves as DIS says; what is left then no division into regions could explain.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pixelkin.cues.optical_flow import dis_flow
from pixelkin.cues.photometric import photometric_loss
from pixelkin.data import Sample
from pixelkin.formats import open_dataset
from pixelkin.methods.amd import AMD
from pixelkin.methods.amd_examples import resized
from pixelkin.methods.base import Method
from pixelkin.models.amd import AMDNetwork, PairOutput
from siseg_quality import machine

ROWS = ("rest", "one motion", "truth", "regions", "network", "flow")
Labels = npt.NDArray[np.int64]


def pyramid(flow: npt.NDArray[np.float32], scales: int) -> list[Tensor]:
    """A (2, H, W) flow in pixels of each scale, finest first."""
    fine = torch.from_numpy(flow)[None]
    return [torch.nn.functional.interpolate(fine, scale_factor=0.5**i, mode="area") * 0.5**i for i in range(scales)]


def medians(flow: npt.NDArray[np.float32], labels: Labels) -> npt.NDArray[np.float32]:
    """The flow in which each label moves by the median of a (2, H, W) flow in it."""
    out = np.zeros_like(flow)
    for label in np.unique(labels):
        inside = labels == label
        out[:, inside] = np.median(flow[:, inside], axis=1)[:, None]
    return out


@torch.no_grad()
def values(method: AMD, first: Sample, second: Sample) -> list[float]:
    """The objective of every row for a pair of frames."""
    network, config = method.network, method.config
    if not isinstance(network, AMDNetwork) or config.objective != "photometric":
        raise SystemExit("give a model of objective=photometric")
    size = config.motion_size
    images = [resized(sample.image, size) for sample in (first, second)]
    pair = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    there, back = dis_flow(*images), dis_flow(*images[::-1])
    masks = [_shrunk(sample, size) for sample in (first, second)]
    key = method.facts.get("heads", {}).get(first.clip, {}).get("key")
    common = network.appearance
    network.appearance = network.of_clip(key)
    try:
        out = cast("PairOutput", network.eval()(pair[None]))
    finally:
        network.appearance = common
    shares = torch.nn.functional.interpolate(out.regions[0], size, mode="bilinear", align_corners=False)
    owners = shares.argmax(dim=1).numpy()
    count = len(config.scales)

    def of(forward: Sequence[Tensor], backward: Sequence[Tensor]) -> float:
        return float(photometric_loss(pair[:1], pair[1:], forward, backward, config.photometric))

    def moved(divisions: Sequence[Labels]) -> float:
        flows = [medians(flow, division) for flow, division in zip((there, back), divisions, strict=True)]
        return of(pyramid(flows[0], count), pyramid(flows[1], count))

    return [
        of(pyramid(0 * there, count), pyramid(0 * back, count)),
        moved([np.zeros(size, np.int64)] * 2),
        moved(masks),
        moved(list(owners)),
        of(out.flow.forward.flows, out.flow.backward.flows),
        of(pyramid(there, count), pyramid(back, count)),
    ]


def _shrunk(sample: Sample, size: tuple[int, int]) -> Labels:
    if sample.instances is None:
        raise SystemExit(f"{sample.name}: no mask in Annotations")
    mask = (sample.instances.label_map() > 0).astype(np.uint8)
    return np.asarray(cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.int64)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("davis", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=8, help="of each sequence")
    parser.add_argument("--gap", type=int, default=1, help="frames from one to the other")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    method = cast("AMD", Method.load(options.model, device="cpu"))
    dataset = open_dataset(options.davis)
    table: dict[str, list[float]] = {}
    print(f"{'objective, lower is better':28s}" + "".join(f"{row:>12s}" for row in ROWS))
    for name in sorted({str(sample.clip) for sample in dataset}):
        clip = dataset.filter(lambda sample, name=name: sample.clip == name)  # type: ignore[misc]
        starts = np.unique(np.linspace(0, len(clip) - 1 - options.gap, options.pairs).round().astype(int))
        found = [values(method, clip[int(k)], clip[int(k) + options.gap]) for k in starts]
        table[name] = np.mean(found, axis=0).tolist()
        print(f"{name:28s}" + "".join(f"{value:12.3f}" for value in table[name]), flush=True)
    print(f"{'mean':28s}" + "".join(f"{value:12.3f}" for value in np.mean(list(table.values()), axis=0)))
    if options.out is not None:
        options.out.write_text(json.dumps({"rows": ROWS, "sequences": table, **machine()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
