"""Bytes and lineage: declarations, the only writer of Zarr, tasks, manifest; nothing biological."""
