"""Pictures of what was found: overlays, fields, and the HTML gallery."""

from pixelkin.viz.colors import class_color, instance_color
from pixelkin.viz.fields import (
    boundary_picture,
    centers_picture,
    flow_wheel,
    heatmap,
    panel,
    semantic_picture,
    wheel,
)
from pixelkin.viz.gallery import GalleryEntry, gallery_entry, with_tracks, write_gallery
from pixelkin.viz.overlay import overlay

__all__ = [
    "GalleryEntry",
    "boundary_picture",
    "centers_picture",
    "class_color",
    "flow_wheel",
    "gallery_entry",
    "heatmap",
    "instance_color",
    "overlay",
    "panel",
    "semantic_picture",
    "wheel",
    "with_tracks",
    "write_gallery",
]
