"""The verbs: thin, one file each."""
