"""A seeded renderer of scenes and clips in which every label is exact. For tests, demos and benchmarks."""

from pixelkin.data.synthetic.clip import Clip, clip_dataset, render_clip
from pixelkin.data.synthetic.scene import Scene, render_scene, scene_dataset

__all__ = ["Clip", "Scene", "clip_dataset", "render_clip", "render_scene", "scene_dataset"]
