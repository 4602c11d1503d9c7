"""The benchmark's models as one would write them by hand in PyTorch: no distributions, the loss spelled out.

Every contender draws fresh noise, sums the same sampled bound over the batch, and takes the same step of Adam.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

LADDER = (64, 32, 16, 8, 4), (512, 256, 128, 64, 32)


def dense(sizes, activation, batch_norm):
    layers = []
    for before, after in pairwise(sizes):
        layers.append(nn.Linear(before, after, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm1d(after))
        layers.append(activation())
    return nn.Sequential(*layers)


class VAE(nn.Module):
    """784-200-200-50, softplus; K particles under the importance-weighted bound."""

    def __init__(self, particles=1):
        super().__init__()
        self.particles = particles
        self.encoder = dense((784, 200, 200), nn.Softplus, False)
        self.head = nn.Linear(200, 100)
        self.decoder = nn.Sequential(dense((50, 200, 200), nn.Softplus, False), nn.Linear(200, 784))

    def forward(self, x):
        loc, variance = self.head(self.encoder(x)).chunk(2, -1)
        scale = (F.softplus(variance) + 1e-8).sqrt()
        noise = torch.randn(self.particles, *loc.shape)
        z = loc + scale * noise
        log_ratio = (0.5 * (noise**2 - z**2) + scale.log()).sum(-1)
        logits = self.decoder(z)
        likelihood = -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
        weights = likelihood + log_ratio
        return -(weights.logsumexp(0)).sum()


class Ladder(nn.Module):
    """64-32-16-8-4 with batch norm, leaky relu."""

    def __init__(self):
        super().__init__()
        sizes, widths = LADDER
        leaky = lambda: nn.LeakyReLU(0.1)  # noqa: E731
        below = (784, *widths[:-1])
        self.up = nn.ModuleList(dense((b, w, w), leaky, True) for b, w in zip(below, widths, strict=True))
        self.heads = nn.ModuleList(nn.Linear(w, 2 * s) for w, s in zip(widths, sizes, strict=True))
        self.down = nn.ModuleList(
            nn.Sequential(
                dense((sizes[i + 1], widths[i + 1], widths[i + 1]), leaky, True), nn.Linear(widths[i + 1], 2 * sizes[i])
            )
            for i in range(4)
        )
        self.decoder = nn.Sequential(dense((sizes[0], 512, 512), leaky, True), nn.Linear(512, 784))

    def forward(self, x):
        evidence, h = [], x
        for up, head in zip(self.up, self.heads, strict=True):
            h = up(h)
            loc, variance = head(h).chunk(2, -1)
            evidence.append((loc, F.softplus(variance) + 1e-8))
        loc, variance = evidence[-1]
        noise = torch.randn_like(loc)
        z = loc + variance.sqrt() * noise
        log_ratio = (0.5 * (noise**2 - z**2) + 0.5 * variance.log()).sum()
        for layer in reversed(range(4)):
            prior_loc, raw = self.down[layer](z).chunk(2, -1)
            prior = F.softplus(raw) + 1e-8
            e_loc, e_variance = evidence[layer]
            total = prior + e_variance
            loc, variance = (e_loc * prior + prior_loc * e_variance) / total, prior * e_variance / total
            noise = torch.randn_like(loc)
            z = loc + variance.sqrt() * noise
            log_ratio = log_ratio + 0.5 * (noise**2 + variance.log() - prior.log() - (z - prior_loc) ** 2 / prior).sum()
        likelihood = -F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        return -(likelihood + log_ratio)
