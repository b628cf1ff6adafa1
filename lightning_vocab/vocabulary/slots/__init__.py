"""Ids that have a row but no text of their own, and their reuse."""
