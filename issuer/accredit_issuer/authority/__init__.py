"""The keys that sign, from preparation to removal, and what they may sign."""
