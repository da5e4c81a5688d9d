"""Prefect flows over the pipeline: retries, artifacts and schedules; no numbers."""
