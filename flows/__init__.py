"""Prefect flows over the pipeline: runs, artifacts and schedules; no numbers."""
