"""Pictures: reading, transforming, ordering, loading, checking."""
