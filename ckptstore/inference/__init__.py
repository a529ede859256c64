"""Packages: versions for inference, and predictions from them."""
