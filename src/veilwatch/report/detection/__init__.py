"""The report on captures that a model has judged: its document, page and console summary."""
