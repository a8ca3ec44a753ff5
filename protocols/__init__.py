"""Protocols: data sets as references, probes and comparisons; metrics, feature store, runner, score tables."""
