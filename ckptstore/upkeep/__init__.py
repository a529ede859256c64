"""Keeping a store in order: retention, clean-up, checks, copies."""
