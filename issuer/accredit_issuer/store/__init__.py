"""Where state is kept: tables, the database, and the one thread that writes to it."""
