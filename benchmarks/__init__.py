"""Benchmarks: whole programs, timed in turn with what one would use instead. `make bench` runs all of them."""
