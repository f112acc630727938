"""Coverage-guided fuzzing with atheris; `make fuzz` runs every target. See fuzz/run.py."""
