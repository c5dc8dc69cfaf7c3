"""The settings' schema, loading and checks."""
