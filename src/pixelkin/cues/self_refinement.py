"""Self-refinement: a network's own centres and offsets, grouped within the labelled foreground, are labels again.

As in BESTIE (Kim, Yoo, Rhee, Kim, CVPR 2022), whose released code is followed but for two faults: where an instance
lost its centre, the middle of its own mask stands in, not of the whole component; a point at row or column 0 counts.

All on the device of the outputs and for a whole batch: after the components are known, work is on the foreground's
cells and on the few centres, whatever the number of classes. Equal inputs give equal labels: sums are of whole numbers.

Positions are (y, x) in image pixels; cell i of a grid of stride s lies at s * i + (s - 1) / 2. Offsets are in image
pixels, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pixelkin.cues.center_losses import FieldTargets, channel_of

CHUNK = 1 << 22
"""Numbers held at once where centres meet their windows."""


@dataclass(frozen=True)
class Refinement:
    """Settings; the defaults are the release's, in image pixels where they are lengths or areas.

    Attributes:
        stride: image pixels of a cell.
        min_area: smaller components are left out.
        threshold: the least heat of a centre.
        kernel: width of the window in which a centre has the largest heat of its component.
        blob_radius: in cells: where offsets are shorter, the network converges on a point.
        blob_area: fewest and most cells of such a blob that count as a centre. A field of unit slope has 21 around the
            middle of a cell and 16 to 21 elsewhere. Default: 19 to 23 as released at stride 1, where centres were whole
            pixels; 16 to 23 at others.
        blob_heat: the heat at a blob's middle must be above this.
        merge_distance: a blob counts beside centres by heat only if it is further from all of them.
        most: a component of more instances teaches nothing.
        sigma: of the Gaussian drawn at a centre.
        relative_kernel: the window reaches so many times the square root of the component's area to each side, up to
            twice as far as without; ``merge_distance`` shrinks and grows with it. As released: None.
        relative_sigma: sigma over the square root of the instance's area, within a third and four times of ``sigma``.
            As released: None.
        scope: what given points divide: the ``"component"`` they lie in, components without points being left to the
            predicted centres; or all of their ``"class"``, as released.
    """

    stride: int = 4
    min_area: int = 50
    threshold: float = 0.3
    kernel: int = 41
    blob_radius: float = 2.5
    blob_area: tuple[int, int] | None = None
    blob_heat: float = 0.05
    merge_distance: float = 100.0
    most: int = 5
    sigma: float = 6.0
    relative_kernel: float | None = None
    relative_sigma: float | None = None
    scope: Literal["component", "class"] = "component"

    def __post_init__(self) -> None:
        if min(self.stride, self.kernel, self.sigma) <= 0:
            raise ValueError(f"stride {self.stride}, kernel {self.kernel} and sigma {self.sigma} must be above 0")
        if self.scope not in ("component", "class"):
            raise ValueError(f"scope cannot be {self.scope!r}: use 'component' or 'class'")


class Refined(NamedTuple):
    """New labels: ``targets``, and ``instances`` (B, h, w) int64, 0 none, else a number of its own in the batch."""

    targets: FieldTargets
    instances: Tensor


class _Parts(NamedTuple):
    """M parts of a batch's foreground: (B, h, w) part or -1; (M,) cells; image * K + channel; has given centres."""

    number: Tensor
    areas: Tensor
    maps: Tensor
    given: Tensor

    def open(self) -> Tensor:
        """``number``, -1 where the centres are given."""
        return torch.where(self.given[self.number.clamp(min=0)], -1, self.number)


class _Centers(NamedTuple):
    """Centres: (n,) part, (n, 2) place in cells, (n,) flat index of the cell they are in."""

    home: Tensor
    place: Tensor
    cell: Tensor

    def pick(self, rows: Tensor) -> _Centers:
        """Some of them."""
        return _Centers(self.home[rows], self.place[rows], self.cell[rows])


@torch.no_grad()
def refine(
    heat: Tensor,
    offset: Tensor,
    logits: Tensor,
    labels: Tensor,
    ids: Tensor,
    *,
    present: Tensor | None = None,
    components: Tensor | None = None,
    points: Tensor | None = None,
    point_classes: Tensor | None = None,
    settings: Refinement = Refinement(),
) -> Refined:
    """Centre and offset targets from the outputs of a network, its own or a teacher's. No gradient.

    Args:
        heat: (B, K, h, w) centre heat, raw.
        offset: (B, 2, h, w) (dy, dx) in image pixels.
        logits: (B, 1 + C, h, w) semantic, the background first.
        labels: (B, h, w) class ids of the semantic map on the same grid: only its foreground is divided.
        ids: (C,) class id of each semantic channel but the background's.
        present: (B, K) class id of each heat channel, 0 for an empty one. Default: ``ids``.
        components: (B, h, w) integers, 0 none, else the component's number in its image, where a loader knows them
            already. Default: the 8-connected ones of ``labels``.
        points: (B, P, 2) (y, x) in image pixels: given centres. They take the place of the predicted ones, in any
            number, and what is grouped to them has weight 1.
        point_classes: (B, P) class id of each; 0 for none, as images have different numbers of points.
        settings: thresholds.

    Raises:
        ValueError: tensors that are not on one grid, or points without classes.
    """
    heat, offset = heat.float(), offset.float()
    grids = {tuple(each.shape[-2:]) for each in (heat, offset, logits, labels)}
    if len(grids) > 1:
        raise ValueError(f"heat, offset, logits and labels are of sizes {sorted(grids)}: bring them to one grid")
    if (points is None) != (point_classes is None):
        raise ValueError("points need a class each: give both points and point_classes, or neither")
    stride = settings.stride
    present = (ids if present is None else present).to(labels.device).long().expand(heat.shape[:2])
    semantic_channel = channel_of(labels, ids)
    channel = torch.where(semantic_channel >= 0, channel_of(labels, present), -1)
    parts, fixed = _divide(channel, labels, present, components, points, point_classes, settings)
    weight, instances = torch.zeros(labels.shape, device=heat.device), torch.zeros_like(channel)
    if not len(parts.areas):
        return Refined(FieldTargets(torch.zeros_like(heat), torch.zeros_like(offset), weight, weight), instances)

    own = heat.gather(1, channel.clamp(min=0)[:, None])[:, 0]
    plain = max(settings.kernel // 2, 1)
    reach = torch.full(parts.areas.shape, float(plain), device=heat.device)
    if settings.relative_kernel is not None:
        reach = (settings.relative_kernel * stride * parts.areas.sqrt()).clamp(1, 2 * plain)
    tops = _peaks(own, parts.open(), (reach / stride).round().clamp(min=1).long(), settings.threshold)
    blobs = _blobs(own, offset / stride, parts.open(), settings)
    apart = (settings.merge_distance * reach / plain / stride)[blobs.home][:, None]
    near = torch.cdist(blobs.place, tops.place, compute_mode="donot_use_mm_for_euclid_dist") <= apart
    blobs = blobs.pick(~(near & (blobs.home[:, None] == tops.home)).any(1))
    centers = _Centers(*(torch.cat(each) for each in zip(fixed, tops, blobs, strict=True)))
    centers = centers.pick(centers.home.argsort(stable=True))
    pixel = (parts.number >= 0).flatten().nonzero()[:, 0]
    part = parts.number.flatten()[pixel]
    steps = offset.permute(0, 2, 3, 1).reshape(-1, 2)[pixel] / stride
    chosen = _nearest(_places(pixel, channel) + steps, part, centers, len(parts.areas))
    sizes = torch.bincount(chosen[chosen >= 0], minlength=len(centers.home))
    found = torch.bincount(centers.home[sizes > 0], minlength=len(parts.areas))
    taught = (chosen >= 0) & ((found <= settings.most) | parts.given)[part]
    pixel, chosen = pixel[taught], chosen[taught]

    warm = own.flatten().clone()
    warm[blobs.cell] = 1.0
    confidence, middle = _judge(
        warm[pixel], _probability(logits, semantic_channel, pixel), pixel, chosen, centers, channel, settings.threshold
    )
    certain = parts.given[centers.home]
    confidence = torch.where(certain, 1.0, confidence)
    middle = torch.where(certain[:, None], centers.place, middle)

    sizes = torch.bincount(chosen, minlength=len(certain))
    sigma = torch.full(sizes.shape, settings.sigma, device=heat.device)
    if settings.relative_sigma is not None:
        sigma = (settings.relative_sigma * stride * sizes.sqrt()).clamp(settings.sigma / 3, settings.sigma * 4)
    sigma = torch.where((sizes > 0) | certain, sigma, 0.0)
    target = _draw(heat.shape, parts.maps[centers.home], middle, sigma, stride)
    weight.view(-1)[pixel] = confidence[chosen]
    motion = torch.zeros(*labels.shape, 2, device=heat.device)
    motion.view(-1, 2)[pixel] = (middle[chosen] - _places(pixel, channel)) * stride
    instances.view(-1)[pixel] = chosen + 1
    return Refined(FieldTargets(target, motion.permute(0, 3, 1, 2), weight, weight), instances)


def label_components(labels: Tensor, connectivity: int = 8) -> Tensor:
    """Connected components of equal numbers above 0 in a batch of maps, on their device.

    Neighbours hook their trees of cells onto one another until all that touch are one tree, which takes a number of
    rounds that grows with the logarithm of the map.

    Args:
        labels: (B, h, w) integers, 0 none.
        connectivity: 4 or 8.

    Returns:
        (B, h, w) int64: 0 none, else 1 + the component's first cell in the whole batch.

    Raises:
        ValueError: a connectivity other than 4 or 8.
    """
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8, got {connectivity}")
    height, width = labels.shape[-2:]
    cells = torch.arange(labels.numel(), device=labels.device).view(labels.shape)
    ends = []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1))[: connectivity // 2]:
        upper, lower = slice(0, height - dy), slice(dy, height)
        left, right = slice(max(0, -dx), width - max(0, dx)), slice(max(0, dx), width - max(0, -dx))
        a, b = labels[:, upper, left], labels[:, lower, right]
        joined = (a == b) & (a > 0)
        ends.append(torch.stack([cells[:, upper, left][joined], cells[:, lower, right][joined]]))
    a, b = torch.cat(ends, dim=1)
    root = cells.flatten()
    while True:
        above, below = root[a], root[b]
        apart = above != below
        if not bool(apart.any()):
            return torch.where(labels > 0, root.view(labels.shape) + 1, 0)
        a, b, above, below = a[apart], b[apart], above[apart], below[apart]
        root = root.scatter_reduce(0, torch.maximum(above, below), torch.minimum(above, below), "amin")
        while not torch.equal(up := root[root], root):  # flat again: only roots may be hooked, else a tree would break
            root = up


def _divide(
    channel: Tensor,
    labels: Tensor,
    present: Tensor,
    components: Tensor | None,
    points: Tensor | None,
    point_classes: Tensor | None,
    settings: Refinement,
) -> tuple[_Parts, _Centers]:
    """The parts of the foreground that are large enough, and the given centres in them."""
    batch, height, width = channel.shape
    channels, stride, device = max(present.shape[1], 1), settings.stride, channel.device
    image = torch.arange(batch, device=device)
    if components is None:
        components = label_components(torch.where(channel >= 0, labels.long(), 0))
    components = torch.where(channel >= 0, components.long(), 0)
    thing = components > 0
    maps = image[:, None, None] * channels + channel.clamp(min=0)
    place = torch.zeros(0, 2, device=device)
    cell = place_map = torch.zeros(0, dtype=torch.long, device=device)
    if points is not None and point_classes is not None:
        point_channel = channel_of(point_classes[..., None], present)[..., 0]
        real = point_channel >= 0
        place_map = (image[:, None] * channels + point_channel)[real]
        place = (points.float() - (stride - 1) / 2)[real] / stride
        rows, columns = torch.floor(place + 0.5).long().unbind(1)
        cell = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1) + place_map // channels * height * width
        if settings.scope == "class":  # a class with points is one part, in however many pieces
            whole = torch.zeros(batch * channels, dtype=torch.bool, device=device)
            whole[place_map] = True
            components = torch.where(whole[maps], 0, components)
    base = components.max() + 1 if components.numel() else 1
    code = torch.where(thing, maps * base + components, -1).flatten()
    pixel = (code >= 0).nonzero()[:, 0]
    names, part, areas = torch.unique(code[pixel], return_inverse=True, return_counts=True)
    large = (areas * stride**2 >= settings.min_area) | (names % base == 0)
    number = torch.full_like(code, -1)
    number[pixel] = torch.where(large, large.cumsum(0) - 1, -1)[part]
    part_maps, whole_class = names[large] // base, names[large] % base == 0
    home = number[cell]
    if settings.scope == "class" and len(part_maps):
        first = torch.searchsorted(names[large].contiguous(), place_map * base).clamp(max=len(part_maps) - 1)
        home = torch.where((part_maps[first] == place_map) & whole_class[first], first, -1)
    fits = home >= 0
    if len(part_maps):
        fits = fits & (part_maps[home.clamp(min=0)] == place_map)
    given = torch.zeros(len(part_maps), dtype=torch.bool, device=device)
    given[home[fits]] = True
    parts = _Parts(number.view(channel.shape), areas[large], part_maps, given)
    return parts, _Centers(home, place, cell).pick(fits)


def _peaks(own: Tensor, number: Tensor, reach: Tensor, threshold: float) -> _Centers:
    """Cells with the largest heat of their part within its reach; of equals, the first in raster order."""
    height, width = own.shape[-2:]

    def beaten(cell: Tensor, reach: Tensor, most: int) -> Tensor:
        steps = torch.arange(-most, most + 1, device=own.device)
        dy, dx = (grid.flatten() for grid in torch.meshgrid(steps, steps, indexing="ij"))
        rows = cell[:, None] // width % height + dy
        columns = cell[:, None] % width + dx
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        inside &= torch.maximum(dy.abs(), dx.abs()) <= reach[:, None]
        other = torch.where(inside, cell[:, None] + dy * width + dx, cell[:, None])
        values, value = own.flatten()[other], own.flatten()[cell][:, None]
        rival = number.flatten()[other] == number.flatten()[cell][:, None]
        return (rival & ((values > value) | ((values == value) & (other < cell[:, None])))).any(1)

    cell = ((own >= threshold) & (number >= 0)).flatten().nonzero()[:, 0]
    cell = cell[~beaten(cell, torch.ones_like(cell), 1)]  # a sieve: few are left for the large window
    home = number.flatten()[cell]
    most = int(reach.max()) if len(cell) else 1
    chunks = torch.split(cell, max(1, CHUNK // (2 * most + 1) ** 2))
    lost = [beaten(each, reach[number.flatten()[each]], most) for each in chunks]
    kept = ~torch.cat(lost) if lost else torch.zeros(0, dtype=torch.bool, device=own.device)
    return _Centers(home, _places(cell, own), cell).pick(kept)


def _blobs(own: Tensor, offset: Tensor, number: Tensor, settings: Refinement) -> _Centers:
    """Where offsets (in cells) converge on a point, as they do if their slope is one."""
    height, width = own.shape[-2:]
    short = (offset.square().sum(1) < settings.blob_radius**2) & (number >= 0)
    blob = label_components(torch.where(short, number + 1, 0), connectivity=4).flatten()
    pixel = (blob > 0).nonzero()[:, 0]
    first, which, areas = torch.unique(blob[pixel], return_inverse=True, return_counts=True)
    total = torch.zeros(len(first), 2, dtype=torch.long, device=own.device)
    total.index_add_(0, which, _places(pixel, own).long())
    place = (total / areas[:, None]).float()
    rows, columns = torch.floor(place + 0.5).long().unbind(1)
    cell = (first - 1) // (height * width) * (height * width) + rows * width + columns
    home = number.flatten()[first - 1]
    fewest, largest = settings.blob_area or ((19, 23) if settings.stride == 1 else (16, 23))
    kept = (areas >= fewest) & (areas <= largest) & (number.flatten()[cell] == home)
    return _Centers(home, place, cell).pick(kept & (own.flatten()[cell] > settings.blob_heat))


def _nearest(ends: Tensor, part: Tensor, centers: _Centers, parts: int) -> Tensor:
    """For each end of a cell's offset, the nearest centre of its part; -1 where there is none. ``home`` is sorted."""
    counts = torch.bincount(centers.home, minlength=parts)
    first, count = (counts.cumsum(0) - counts)[part], counts[part]
    best = torch.full(part.shape, torch.inf, device=ends.device)
    chosen = torch.full_like(part, -1)
    for start in range(0, int(counts.max()), 16):  # mostly once; bounds the memory where a part has hundreds
        rank = torch.arange(start, min(start + 16, int(counts.max())), device=ends.device)
        row = (first[:, None] + rank).clamp(max=len(centers.home) - 1)
        distance = (ends[:, None] - centers.place[row]).square().sum(2)
        nearest, at = torch.where(rank < count[:, None], distance, torch.inf).min(1)
        better = nearest < best
        best = torch.where(better, nearest, best)
        chosen = torch.where(better, first + start + at, chosen)
    return chosen


def _judge(
    warm: Tensor, probability: Tensor, pixel: Tensor, chosen: Tensor, centers: _Centers, grid: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """(n,) confidence of each instance, and (n, 2) its middle in cells."""
    count = len(centers.home)
    sizes = torch.bincount(chosen, minlength=count).clamp(min=1)
    fixed_point = (probability.double() * 2**32).round().long()
    seg = torch.zeros(count, dtype=torch.long, device=warm.device).index_add_(0, chosen, fixed_point) / sizes / 2**32
    top = torch.full((count,), -torch.inf, device=warm.device).scatter_reduce(0, chosen, warm, "amax")
    at_top = warm == top[chosen]
    peak = torch.full((count,), grid.numel(), device=warm.device)
    peak = peak.scatter_reduce(0, chosen[at_top], pixel[at_top], "amin").clamp(max=grid.numel() - 1)
    places = _places(pixel, grid)
    total = torch.zeros(count, 2, dtype=torch.long, device=warm.device).index_add_(0, chosen, places.long())
    sure = top >= threshold
    middle = torch.where(sure[:, None], _places(peak, grid), total / sizes[:, None])
    return torch.where(sure, (top * seg).clamp(0, 1), seg).float(), middle.float()


def _probability(logits: Tensor, channel: Tensor, pixel: Tensor) -> Tensor:
    """Probability of its own class at each of some flat cells, from the class's channel, the background not counted."""
    cells = channel[0].numel()
    rows = logits.flatten(2)[pixel // cells, :, pixel % cells].float()
    return rows.softmax(1).gather(1, channel.flatten()[pixel][:, None] + 1)[:, 0]


def _draw(shape: torch.Size, maps: Tensor, place: Tensor, sigma: Tensor, stride: int) -> Tensor:
    """A (B, K, h, w) heat like :func:`pixelkin.cues.transfer.draw_center`'s, places in cells; sigma 0 draws nothing."""
    height, width = shape[-2:]
    out = torch.zeros(shape, device=place.device).flatten()
    if not len(maps):
        return out.view(shape)
    reach = (3 * sigma + 1)[:, None]
    most = int(reach.max() / stride) + 1
    steps = torch.arange(-most, most + 1, device=place.device)
    dy, dx = (grid.flatten() for grid in torch.meshgrid(steps, steps, indexing="ij"))
    middle = torch.floor(place + 0.5).long()
    rows, columns = middle[:, :1] + dy, middle[:, 1:] + dx
    y, x = (rows - place[:, :1]) * stride, (columns - place[:, 1:]) * stride
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width) & (sigma > 0)[:, None]
    inside &= (y.abs() <= reach) & (x.abs() <= reach)
    patch = torch.exp(-(y.square() + x.square()) / (2 * sigma.square().clamp(min=1e-12))[:, None])
    index = maps[:, None] * height * width + rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    return out.scatter_reduce(0, index.flatten(), (patch * inside).flatten(), "amax").view(shape)


def _places(cell: Tensor, grid: Tensor) -> Tensor:
    """(n, 2) float (row, column) of flat cells of a (..., h, w) batch."""
    height, width = grid.shape[-2:]
    return torch.stack([cell // width % height, cell % width], dim=1).float()
