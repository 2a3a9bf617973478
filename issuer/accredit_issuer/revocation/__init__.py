"""Taking back: facts, and what is derived from them in the same transaction."""
