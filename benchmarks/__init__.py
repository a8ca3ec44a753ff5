"""Benchmarks, reached by `pifr bench NAME` (all but `turned_faces`): warm-up, medians, and ratios within one run."""
