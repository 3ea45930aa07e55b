"""Published claims, tested."""
