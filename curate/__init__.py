"""Curation: from raw files to a dataset version in which every row is accounted for."""
