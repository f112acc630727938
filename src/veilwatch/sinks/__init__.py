"""Where results go: one small file for each destination, none knows another."""
