"""Speed against what others would run, both sides in one process: ``make bench``, or ``python -m benchmarks NAMES``."""
