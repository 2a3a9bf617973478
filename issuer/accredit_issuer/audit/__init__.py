"""What happened and why, so that nobody can change it unseen: records, the log, explanations."""
