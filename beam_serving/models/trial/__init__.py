"""Tries a model before it serves: which rows belong to one record, and what its values should be."""
