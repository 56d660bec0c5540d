"""The difference of two versions: which rows changed and why, what that does to the data, and whether it may pass.

changes.py      rows that came, went or changed      upstream.py   rows edited by their publisher
places.py       where the rows that differ stand
attribution.py  what made each change                replay.py     which configuration key, by running a stage again
texts.py        before and after, word by word       clusters.py   near-duplicates born, gone and merged
drift.py        distributions of the sources         fates.py      what becomes of rows: kept, rejected, not there
columns.py      columns and settings that differ     reviews.py    what became of people's decisions
pairs.py        rows that both have, side by side    reckoning.py  all of it put together
account.py      what the page and --json have        gate.py       rules that a diff must keep;  gauge.py  their words
"""
