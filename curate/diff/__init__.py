"""The difference of two versions: which rows changed and why, what that does to the data, and whether it may pass.

changes.py      rows that came, went or changed      upstream.py   rows edited by their publisher
places.py       where the rows that differ stand
attribution.py  what made each change                replay.py     which configuration key, by running a stage again
texts.py        before and after, word by word       clusters.py   near-duplicates born, gone and merged
drift.py        distributions of the sources         account.py    all of it: what the page and --json have
gate.py         rules that a diff must keep
"""
