"""Who runs what: plans, growth, cross-validation, replicates, forecast, cluster, progress."""
