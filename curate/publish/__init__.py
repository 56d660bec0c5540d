"""A version as a dataset that others can use: Parquet files, a card, Croissant, a summary for the EU's AI Act, the hub.

What is said of a version is worked out once, in `facts`; `card`, `croissant` and `ai_act` are ways to write it.
"""
