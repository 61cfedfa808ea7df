"""Compare finished runs: read what they logged, aggregate over seeds, draw and report."""
