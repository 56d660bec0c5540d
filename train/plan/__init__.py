"""Which records sit in which row of which step: a pure function, so that a run can be known before it starts.

    step        0               1
    rows    ┌─────────┐     ┌─────────┐      a row holds whole records, at most `max_tokens` tokens
            │ d d d b │     │ c c c c │
            │ a a a a │     └─────────┘      a step holds `rows_per_step` rows: as many as hold `batch` records
            └─────────┘

packing.py decides which lengths lie together, draw.py which records those are, replay's among them; curriculum.py may
put the first epoch in an order; plan.py makes steps of the rows, and ranks.py shares a step out among processes.
"""

from train.plan.packing import pack
from train.plan.plan import Columns, Plan, Row, Step, make_plan

__all__ = ["Columns", "Plan", "Row", "Step", "make_plan", "pack"]
