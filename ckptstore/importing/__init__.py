"""Bringing in checkpoints that other tools wrote, without running anything that they hold."""
