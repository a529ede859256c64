"""Format 1 as pure functions: names, trees, packs, manifests and journals. No I/O happens here."""
