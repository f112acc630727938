"""The report on a field test: what a sensor did within a period."""
