"""The networks and their training; the only folder that imports keras."""
