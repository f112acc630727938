"""The types that pass between rooms. No logic lives here beyond checks of their shape."""
