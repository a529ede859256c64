"""The SQL index of manifests and journals: everything in it is also in the store."""
