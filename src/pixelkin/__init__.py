"""Pixelkin: instance masks from the labels you already have."""

__version__ = "0.1.0"
