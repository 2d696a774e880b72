"""Loops over the methods that yield rows, and the making of the demo."""
