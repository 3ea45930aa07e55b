"""Run directories: address, lock, seal, verify, lineage."""
