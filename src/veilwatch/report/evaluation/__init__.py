"""The report on how well a model does."""
