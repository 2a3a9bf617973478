"""Other trust domains: relationships with them, and their bundles, fetched and kept fresh."""
