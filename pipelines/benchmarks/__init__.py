"""Programs that measure: one per figure of the documentation, `python -m pipelines.benchmarks.NAME` from a clone."""
