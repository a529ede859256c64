"""From bytes to state: ranges and digests, modules on their device, training state in place."""
