"""Flow tables to models and figures: features, detectors, training, evaluation, comparison."""
