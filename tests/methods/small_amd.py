"""The published objective of AMD at the size of tests."""

from __future__ import annotations

from pixelkin.methods.amd import AMD
from pixelkin.methods.amd_config import AMDConfig

SMALL = {
    "objective": "photometric",
    "head_channels": "8",
    "motion_size": "64,64",
    "crop": "64",
    "short_edge": "68",
    "training.iterations": "3",
    "training.batch_size": "2",
    "training.checkpoint_every": "1e-9",
}


def made(**settings: object) -> AMD:
    """A method with these settings in place of the small ones."""
    return AMD(AMDConfig.from_settings(SMALL | {key: str(value) for key, value in settings.items()}))
