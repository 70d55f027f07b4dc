"""Which ImageNet classes a class name means."""

from __future__ import annotations

import re
from functools import lru_cache

from timm.data.imagenet_info import ImageNetInfo

IMAGENET_CLASSES = 1000

_RANGES: dict[str, tuple[range, ...]] = {
    "bird": (range(7, 25), range(80, 101), range(127, 147)),
    "cat": (range(281, 286),),
    "dog": (range(151, 269),),
    "fish": (range(7), range(389, 398)),
    "insect": (range(300, 327),),
    "monkey": (range(369, 383),),
    "snake": (range(52, 69),),
    "spider": (range(72, 78),),
}
"""Kinds that ImageNet has many breeds of, which follow one another in its list."""

_SYNONYMS = {
    "aeroplane": ("airliner", "warplane"),
    "airplane": ("airliner", "warplane"),
    "apple": ("granny smith",),
    "bear": ("brown bear", "american black bear", "ice bear", "sloth bear"),
    "bicycle": ("tandem bicycle", "mountain bike"),
    "bike": ("tandem bicycle", "mountain bike"),
    "boat": ("canoe", "speedboat", "gondola", "catamaran", "trimaran", "yawl", "lifeboat", "schooner"),
    "bus": ("school bus", "minibus", "trolleybus"),
    "car": ("sports car", "convertible", "cab", "jeep", "limousine", "minivan", "beach wagon", "racer", "model t"),
    "chair": ("barber chair", "folding chair", "rocking chair"),
    "cow": ("ox",),
    "handbag": ("purse",),
    "horse": ("sorrel",),
    "kite": (),
    "motorbike": ("moped", "motor scooter"),
    "motorcycle": ("moped", "motor scooter"),
    "oven": ("rotisserie",),
    "pottedplant": ("flowerpot",),
    "sheep": ("ram", "bighorn sheep"),
    "ship": ("container ship", "liner", "schooner", "aircraft carrier"),
    "sofa": ("studio couch",),
    "sportsball": ("soccer ball", "tennis ball", "rugby ball", "basketball", "volleyball", "baseball"),
    "stopsign": ("street sign",),
    "toilet": ("toilet seat",),
    "train": ("bullet train", "steam locomotive", "electric locomotive"),
    "tv": ("television",),
    "tvmonitor": ("television", "monitor"),
    "wineglass": ("goblet",),
}
"""What ImageNet calls a thing; instead of the rule, where the rule would find other things (a kite is a bird there)."""


def imagenet_rows(name: str) -> tuple[int, ...]:
    """Indices of the ImageNet classes that a class name means, in ascending order; none where it knows nothing of it.

    The name must be the last word or words of one of the class's names: a Persian cat is a cat, while a polecat is none
    and a car mirror no car. Upper case, spaces, hyphens and underscores do not count (``pottedplant``), and a plural is
    taken for its singular. Kinds with many breeds, and things that ImageNet calls otherwise, come from a small table.
    """
    spelled = _join(name)
    for word in (spelled, *_singulars(spelled)):
        if word in _RANGES:
            return tuple(sorted(i for each in _RANGES[word] for i in each))
        if word in _SYNONYMS:
            return tuple(sorted({i for synonym in _SYNONYMS[word] for i in _endings()[_join(synonym)]}))
        if word in _endings():
            return tuple(_endings()[word])
    return ()


@lru_cache(maxsize=1)
def _endings() -> dict[str, list[int]]:
    """The last words of every name of every class, written together, to the classes."""
    found: dict[str, list[int]] = {}
    info = ImageNetInfo()
    for index in range(IMAGENET_CLASSES):
        names = info.index_to_description(index).split(",")
        words = (re.findall(r"[^\W_]+", each.lower()) for each in names)
        for ending in {"".join(each[i:]) for each in words for i in range(len(each))}:
            found.setdefault(ending, []).append(index)
    return found


def _join(name: str) -> str:
    return "".join(re.findall(r"[^\W_]+", name.lower()))


def _singulars(word: str) -> list[str]:
    """What a word may be the plural of."""
    rules = (("ies", "y"), ("es", ""), ("s", ""))
    return [word[: -len(end)] + instead for end, instead in rules if word.endswith(end) and len(word) > len(end) + 1]
