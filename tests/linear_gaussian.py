"""A hierarchy whose evidence and posterior are known in closed form.

z_L ~ N(0, 1), z_l | z_{l+1} ~ N(a_l z_{l+1} + b_l, s_l^2), x | z_1 ~ N(W z_1 + c, r^2 I), all latents scalars.
"""

import math

import pyro.distributions as dist
import torch
from torch import nn

from pyrovae.programs.guides import BottomUp, Ladder, MeanField, ResidualTopDown, TopDown
from pyrovae.programs.models import GenerativeModel
from pyrovae.programs.priors import StandardNormal

SLOPES, SHIFTS, SCALES = (0.8, -1.2, 0.7, 0.9), (0.3, -0.1, 0.2, -0.4), (0.6, 0.9, 0.5, 0.7)
WEIGHT, BIAS, NOISE = (1.0, -0.5, 0.3), (0.1, 0.0, -0.2), 0.7


class LinearGaussian(nn.Module):
    """N(weight z + bias, scale^2), diagonal."""

    def __init__(self, weight, bias, scale):
        super().__init__()
        self.weight = nn.Parameter(torch.as_tensor(weight).reshape(len(bias), -1))
        self.bias = nn.Parameter(torch.as_tensor(bias))
        self.log_scale = nn.Parameter(torch.full((len(bias),), math.log(scale)))

    def forward(self, z):
        return dist.Normal(z @ self.weight.T + self.bias, self.log_scale.exp()).to_event(1)


class Several(nn.Module):
    """Distributions of several layers from the same data."""

    def __init__(self, *heads):
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, x):
        return [head(x) for head in self.heads]


class Chain:
    """A chain of ``depth`` latents: its program, evidence, and exact posterior in the form of each guide."""

    def __init__(self, depth, scales=SCALES):
        self.depth = depth
        self.slopes, self.shifts, self.scales = SLOPES[: depth - 1], SHIFTS[: depth - 1], scales[: depth - 1]
        self.weight, self.bias = torch.tensor(WEIGHT), torch.tensor(BIAS)
        conditionals = [LinearGaussian([a], [b], s) for a, b, s in zip(self.slopes, self.shifts, self.scales, strict=True)]
        self.model = GenerativeModel(StandardNormal(1), LinearGaussian(WEIGHT, BIAS, NOISE), conditionals)

    def marginals(self):
        """Mean and variance of each latent under the prior, z1 first."""
        moments = [(torch.tensor(0.0), torch.tensor(1.0))]
        for a, b, s in zip(reversed(self.slopes), reversed(self.shifts), reversed(self.scales), strict=True):
            mean, variance = moments[0]
            moments.insert(0, (a * mean + b, a**2 * variance + s**2))
        return moments

    def evidence(self, x):
        """log p(x), (B,)."""
        mean, variance = self.marginals()[0]
        covariance = variance * torch.outer(self.weight, self.weight) + NOISE**2 * torch.eye(3)
        return dist.MultivariateNormal(self.weight * mean + self.bias, covariance).log_prob(x)

    def data_given(self, layer):
        """x given z_layer: slope, shift and covariance."""
        slope, shift, variance = 1.0, torch.tensor(0.0), torch.tensor(0.0)
        for a, b, s in zip(self.slopes[: layer - 1], self.shifts, self.scales, strict=False):
            shift, variance, slope = shift + slope * b, variance + (slope * s) ** 2, slope * a
        return (
            self.weight * slope,
            self.weight * shift + self.bias,
            variance * torch.outer(self.weight, self.weight) + NOISE**2 * torch.eye(3),
        )

    def message(self, layer):
        """p(x | z_layer) as a normalised Gaussian in z_layer: a conditional given x."""
        slope, shift, covariance = self.data_given(layer)
        gain = torch.linalg.solve(covariance, slope)
        variance = 1 / (slope @ gain)
        return LinearGaussian(variance * gain, [-(variance * gain @ shift).item()], variance.sqrt().item())

    def posterior(self, layer):
        """p(z_layer | x): the message times the marginal prior."""
        message = self.message(layer)
        mean, variance = self.marginals()[layer - 1]
        noise = message.log_scale.exp()[0] ** 2
        total = variance + noise
        bias = (message.bias[0] * variance + mean * noise) / total
        return LinearGaussian(message.weight * variance / total, [bias.item()], (variance * noise / total).sqrt().item())

    def upward(self, layer):
        """p(z_{layer+1} | z_layer)."""
        a, b, s = self.slopes[layer - 1], self.shifts[layer - 1], self.scales[layer - 1]
        mean, variance = self.marginals()[layer]
        total = a**2 * variance + s**2
        gain = a * variance / total
        return LinearGaussian([gain], [(mean - gain * (a * mean + b)).item()], (variance * s**2 / total).sqrt().item())

    def downward(self, layer):
        """p(z_layer | z_{layer+1}, x), called with x and z_{layer+1} side by side."""
        message = self.message(layer)
        a, b, s = self.slopes[layer - 1], self.shifts[layer - 1], self.scales[layer - 1]
        noise = message.log_scale.exp()[0].detach() ** 2
        total = noise + s**2
        weight = torch.cat([message.weight.detach() * s**2 / total, torch.tensor([[a]]) * noise / total], 1)
        bias = (message.bias[0].detach() * s**2 + b * noise) / total
        return LinearGaussian(weight, [bias.item()], (noise * s**2 / total).sqrt().item())

    def difference(self, layer):
        """How p(z_layer | z_{layer+1}, x) differs from the prior: of the locations the difference, of the scales the ratio."""
        exact, (a, b, s) = self.downward(layer), (each[layer - 1] for each in (self.slopes, self.shifts, self.scales))
        prior = torch.tensor([[0.0, 0.0, 0.0, a]])
        scale = exact.log_scale.exp().item() / s
        return LinearGaussian(exact.weight.detach() - prior, [exact.bias.item() - b], scale)

    def exact_guides(self):
        """The exact posterior, written in each family that can express it."""
        layers = range(1, self.depth)
        guides = {
            "bottom_up": BottomUp([self.posterior(1), *(self.upward(layer) for layer in layers)]),
            "ladder": Ladder(self.model, Several(*(self.message(layer) for layer in layers), self.posterior(self.depth))),
            "top_down": self.top_down(*map(self.downward, layers), self.posterior(self.depth)),
            "residual_top_down": self.residual_top_down(*map(self.difference, layers), self.posterior(self.depth)),
        }
        return guides if self.depth > 1 else guides | {"mean_field": MeanField(Several(self.posterior(1)))}

    def top_down(self, *conditionals):
        """With the data themselves as the features of every layer."""
        return TopDown(Several(*(nn.Identity() for _ in conditionals)), conditionals)

    def residual_top_down(self, *conditionals):
        """With the data themselves as the features of every layer."""
        return ResidualTopDown(self.model, Several(*(nn.Identity() for _ in conditionals)), conditionals)

    def wrong_guide(self, family):
        """A guide that is too wide and off centre."""
        heads = [LinearGaussian([[0.5, 0.1, -0.2]], [0.3], 0.9) for _ in range(self.depth)]
        families = {
            "bottom_up": lambda: BottomUp([heads[0], *(LinearGaussian([0.4], [0.1], 0.8) for _ in heads[1:])]),
            "ladder": lambda: Ladder(self.model, Several(*heads)),
            "mean_field": lambda: MeanField(Several(*heads)),
            "top_down": lambda: self.top_down(
                *(LinearGaussian([[0.5, 0.1, -0.2, 0.3]], [0.3], 0.9) for _ in heads[1:]), heads[0]
            ),
            "residual_top_down": lambda: self.residual_top_down(
                *(LinearGaussian([[0.3, 0.1, -0.2, -0.3]], [0.2], 1.2) for _ in heads[1:]), heads[0]
            ),
        }
        return families[family]()
