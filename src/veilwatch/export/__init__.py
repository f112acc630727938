"""Flow tables and values in the forms of others: Parquet, CSV, JSON lines, conn.log."""
