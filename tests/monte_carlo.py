"""How far a mean of samples may be from the truth."""

import math

import torch


def five_standard_errors(samples):
    """Of their mean: beyond it by chance once in 1.7 million."""
    return 5 * samples.std().item() / math.sqrt(samples.numel())


def without_rare(samples, points, probabilities):
    """How many samples there are of each point, and its probability, those of which fewer than ten are expected together."""
    assert torch.isin(samples, points).all()
    counts = (samples.reshape(-1, 1) == points).sum(0).float()
    rare = probabilities * samples.numel() < 10
    merged = [torch.cat([each[~rare], each[rare].sum()[None]]) for each in (counts, probabilities)]
    return tuple(merged) if merged[1][-1] * samples.numel() >= 1 else (merged[0][:-1], merged[1][:-1] / merged[1][:-1].sum())
