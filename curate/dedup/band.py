"""Bands: MinHash signatures, cut into bands, find the pairs that may be alike (locality-sensitive hashing).

A pair of similarity s agrees in all r values of a band with probability s^r, so b bands find it with probability
1 - (1 - s^r)^b. The bands are chosen for recall at the threshold; what they find is only a candidate. datasketch's own
choice balances false positives against false negatives, and at 0.9 misses two thirds of the pairs at the threshold.
"""

from schemas.errors import ConfigError


def band_recall(similarity: float, bands: int, rows: int) -> float:
    """Give the probability that a pair of this similarity shares at least one band (Leskovec et al., MMDS 3.4)."""
    return 1.0 - (1.0 - similarity**rows) ** bands


def choose_bands(threshold: float, recall: float, num_perm: int) -> tuple[int, int]:
    """Give (bands, rows per band): the longest bands that still find `recall` of the pairs at the threshold.

    Long bands let few other pairs through. All permutations are used. Raises ConfigError where even bands of one row
    find too little.
    """
    for rows in range(num_perm // 2, 0, -1):  # at least two bands
        bands = num_perm // rows
        if band_recall(threshold, bands, rows) >= recall:
            return bands, rows
    raise ConfigError(
        f"dedup: recall {recall:g} at threshold {threshold:g}",
        f"not possible with {num_perm} permutations",
        remedy="raise num_perm or the threshold",
    )
