"""From flags to results: configuration, stages, checkpoints, metrics."""
