"""Benchmarks, each reached by `pifr bench NAME`: warm-up, medians, and ratios within one run."""
