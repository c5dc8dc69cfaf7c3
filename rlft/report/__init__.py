"""A run directory, read and shown: summary.json, report.png and report.html."""
