"""Runs: a method over a dataset into a folder, continued where it was interrupted."""
