"""A seeded renderer of scenes and clips in which every label is exact. For tests, demos and benchmarks."""

from pixelkin.data.synthetic.scene import Scene, render_scene, scene_dataset

__all__ = ["Scene", "render_scene", "scene_dataset"]
