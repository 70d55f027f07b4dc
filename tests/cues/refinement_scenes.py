"""Scenes for self-refinement, and the slow rule that its results must equal."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from scipy import ndimage

from pixelkin.cues.self_refinement import Refinement, refine

EIGHT = np.ones((3, 3))
RELEASED = Refinement(stride=1)
IDS = [5, 300]


def oracle(heat, offset, logits, labels, ids, present, s):
    """One image, step by step as the specification tells it (2a-g, 3, 4), in loops."""
    channels, h, w = heat.shape
    at = np.stack(np.meshgrid(np.arange(h), np.arange(w), indexing="ij"), -1) * s.stride + (s.stride - 1) / 2
    exps = np.exp(logits - logits.max(0))
    probability = exps / exps.sum(0)
    target, motion = np.zeros((channels, h, w)), np.zeros((2, h, w))
    weight, instances, number = np.zeros((h, w)), np.zeros((h, w), int), 0
    radius = round((s.kernel // 2) / s.stride)
    fewest, largest = s.blob_area
    for k, class_id in enumerate(present):
        if class_id == 0:
            continue
        pieces, count = ndimage.label(labels == class_id, EIGHT)
        for piece in range(1, count + 1):
            mask = pieces == piece
            if mask.sum() * s.stride**2 < s.min_area:
                continue
            warm = np.where(mask, heat[k], -np.inf)  # a
            tops = []
            for y, x in np.argwhere(mask):  # b
                window = warm[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
                if warm[y, x] >= s.threshold and warm[y, x] == window.max():
                    tops.append((y, x))
            short = mask & (np.hypot(*offset) < s.blob_radius * s.stride)
            blobs, blob_count = ndimage.label(short)  # c: 4-connected
            centers = [tuple(at[y, x]) for y, x in tops]
            warm = warm.copy()
            for blob in range(1, blob_count + 1):
                cells = np.argwhere(blobs == blob)
                if not fewest <= len(cells) <= largest:
                    continue
                middle = cells.mean(0)
                cell = tuple(np.floor(middle + 0.5).astype(int))
                if not (mask[cell] and heat[k][cell] > s.blob_heat):
                    continue
                place = middle * s.stride + (s.stride - 1) / 2
                if all(np.hypot(*(place - at[y, x])) > s.merge_distance for y, x in tops):  # d
                    centers.append(tuple(place))
                    warm[cell] = 1.0
            if not centers:  # e
                continue
            groups = {}
            for y, x in np.argwhere(mask):  # f
                end = at[y, x] + offset[:, y, x]
                groups.setdefault(int(np.argmin([np.hypot(*(end - c)) for c in centers])), []).append((y, x))
            if len(groups) > s.most:  # g
                continue
            for cells in groups.values():
                rows, columns = np.array(cells).T
                seg = probability[1 + list(ids).index(class_id), rows, columns].mean()
                best = int(np.argmax(warm[rows, columns]))
                top = warm[rows, columns][best]
                if top >= s.threshold:
                    confidence, centre = min(max(top * seg, 0), 1), at[rows[best], columns[best]]
                else:
                    confidence, centre = seg, at[rows, columns].mean(0)  # of the mask: issue 5 of the release is mended
                number += 1
                instances[rows, columns], weight[rows, columns] = number, confidence
                motion[:, rows, columns] = (centre - at[rows, columns]).T
                far = at - centre
                patch = np.exp(-(far**2).sum(-1) / (2 * s.sigma**2)) * (np.abs(far).max(-1) <= 3 * s.sigma + 1)
                target[k] = np.maximum(target[k], patch)
    return target, motion, weight, instances


def scene(seed, h=30, w=34, stride=1):
    """Maps as a half-trained network may give them: blocky classes, heat bumps, offsets with places of convergence."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 0, 5, 300, 255], size=(h // 8 + 1, w // 8 + 1)).repeat(8, 0).repeat(8, 1)[:h, :w]
    heat = ndimage.gaussian_filter(rng.normal(0, 1, (2, h, w)), (0, 2, 2)) * 3 + 0.1
    grid = np.stack(np.meshgrid(np.arange(h), np.arange(w), indexing="ij"))
    wells = np.stack([rng.uniform(0, h, 6), rng.uniform(0, w, 6)], 1)
    aim = wells[((grid[None] - wells[:, :, None, None]) ** 2).sum(1).argmin(0)].transpose(2, 0, 1)
    offset = ((aim - grid) * rng.choice([1.0, 1.0, 0.8]) + rng.normal(0, rng.choice([0.01, 1.0]), grid.shape)) * stride
    logits = rng.normal(0, 1, (3, h, w))
    return labels, heat.astype(np.float32), offset.astype(np.float32), logits.astype(np.float32)


def run(scenes, settings=RELEASED, **more):
    labels, heat, offset, logits = (np.stack(each) for each in zip(*scenes, strict=True))
    ids = torch.tensor(IDS)
    return refine(*(torch.from_numpy(x) for x in (heat, offset, logits, labels)), ids, settings=settings, **more)


def same_partition(a, b):
    """Whether two label maps divide alike, whatever the numbers."""
    np.testing.assert_array_equal(a > 0, b > 0)
    pairs = set(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    assert len(pairs) == len({p for p, _ in pairs}) == len({q for _, q in pairs})


def same_as_oracle(got, index, scene_, s, present=IDS):
    labels, heat, offset, logits = scene_
    area = s.blob_area or ((19, 23) if s.stride == 1 else (16, 23))
    s = dataclasses.replace(s, blob_area=area)
    target, motion, weight, instances = oracle(heat, offset, logits, labels, IDS, present, s)
    same_partition(got.instances[index].numpy(), instances)
    np.testing.assert_allclose(got.targets.weight[index], weight, atol=1e-5)
    np.testing.assert_allclose(got.targets.offset[index], motion, atol=1e-3)
    np.testing.assert_allclose(got.targets.heat[index], target, atol=1e-4)
    return instances


def plain(labels, fill=0.0, sure=20.0):
    """A silent network: no heat, offsets that lead nowhere near, certain of every class."""
    h, w = labels.shape
    heat, offset = np.full((2, h, w), fill, np.float32), np.full((2, h, w), 60.0, np.float32)
    logits = np.stack([labels == c for c in (0, *IDS)]).astype(np.float32) * sure
    return [labels, heat, offset, logits]


def bar(h=40, w=160, class_id=5):
    labels = np.zeros((h, w), int)
    labels[5 : h - 5, 5 : w - 5] = class_id
    return labels


def lead(offset, *centres):
    """Offsets to the nearest of the centres."""
    grid = np.stack(np.meshgrid(*(np.arange(side) for side in offset.shape[1:]), indexing="ij"))
    c = np.array(centres, np.float32)
    offset[:] = c[((grid[None] - c[:, :, None, None]) ** 2).sum(1).argmin(0)].transpose(2, 0, 1) - grid


def points_of(*points):
    return torch.tensor([[p[:2] for p in points]]).float(), torch.tensor([[p[2] for p in points]])
