"""A job looked at before it waits in a queue, submitted, and watched; for login nodes."""
