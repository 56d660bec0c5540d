"""Human review: rows go to people in Argilla, and what they decide comes back as a version.

    rows ── choose ──> card ── push ──> Argilla ── pull ──> responses ── decide ──> the stage `review`

`client` is the only module that speaks to Argilla; `server` starts one where there is none.
"""
