"""The node daemon: who calls on this host, what code runs there, and which identity that has."""
