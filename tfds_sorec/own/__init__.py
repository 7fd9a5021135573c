"""The builder of the user's own data."""
