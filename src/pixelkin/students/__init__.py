"""Ordinary segmenters, trained on the labels a run made."""
