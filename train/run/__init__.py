"""A run: what is checked before it, the loop, what it leaves."""
