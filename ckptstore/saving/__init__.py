"""From state to bytes: keywords -> capture -> packing -> commit."""
