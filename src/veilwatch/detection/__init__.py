"""Flow tables and a model to scores, alerts and incidents."""
