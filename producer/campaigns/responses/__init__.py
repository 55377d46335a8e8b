"""Records how recipients respond, and compares variants by it."""
