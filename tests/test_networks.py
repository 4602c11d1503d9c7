"""Networks: shapes of any image, particles in front, gates and shortcuts, normalization, dropout."""

import copy

import pytest
import torch
from torch import nn

from pyrovae.experiments.building import assemble
from pyrovae.experiments.recipe import Recipe
from pyrovae.inference.state import recollect_statistics
from pyrovae.programs.architecture import NETWORKS, Architecture
from pyrovae.programs.convolutions import ImageBatchNorm, PixelReadout, ResidualBlock, convolution
from pyrovae.programs.likelihoods import LIKELIHOODS
from pyrovae.programs.networks import ACTIVATIONS, BatchNorm, Residual, frozen_statistics, gate, mlp

CONVOLUTIONAL = [name for name, block in NETWORKS.items() if block]


def architecture(network, shape=(1, 5, 7), **options):
    return Architecture(shape=shape, latent_sizes=(3,), hidden_sizes=(6,), block=NETWORKS[network], **options)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (1, 1, 1)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("network", NETWORKS)
def test_images_of_any_size_under_particles(network, activation, shape):
    made = architecture(network, shape, activation=ACTIVATIONS[activation], batch_norm=True, context_size=2)
    rows = torch.rand(4, 6, made.input_size)
    for module, inputs in ((made.encoder(5), rows), (made.decoder(3, 5, LIKELIHOODS["bernoulli"]), torch.randn(4, 6, 3))):
        module.eval()
        whole, flat = module(inputs), module(inputs.flatten(0, 1))
        if not isinstance(whole, torch.Tensor):
            whole, flat = whole.mean, flat.mean
            assert whole.shape[2:] == (made.data_size,)
        torch.testing.assert_close(whole.flatten(0, 1), flat)


@pytest.mark.parametrize("network", NETWORKS)
def test_batch_norm_counts_particles_and_examples_alike(network):
    made, rows = architecture(network, batch_norm=True), torch.rand(4, 6, 35)
    encoder = made.encoder(5)
    other = copy.deepcopy(encoder)
    torch.testing.assert_close(encoder(rows).flatten(0, 1), other(rows.flatten(0, 1)))
    for ours, theirs in zip(encoder.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("network", CONVOLUTIONAL)
def test_an_encoder_sees_the_context_behind_the_image(network):
    made = architecture(network, context_size=2)
    encoder, rows = made.encoder(6), torch.rand(1, made.input_size, requires_grad=True)
    (gradient,) = torch.autograd.grad(encoder(rows).square().sum(), rows)
    assert gradient[:, -2:].abs().sum() > 0


def test_what_a_convolution_sees_is_local():
    """Two convolutions of 3 x 3 at full size see two pixels around."""
    block = ResidualBlock(1, 2, activation=nn.Softplus)
    image = torch.rand(1, 1, 9, 9, requires_grad=True)
    (gradient,) = torch.autograd.grad(block(image)[0, :, 4, 4].sum(), image)
    seen = gradient[0, 0] != 0
    assert seen[2:7, 2:7].all()
    assert seen.sum() == 25


def test_a_gate_multiplies_one_half_by_the_sigmoid_of_the_other():
    torch.manual_seed(0)
    layer = mlp([3, 5], activation=gate)
    h = torch.randn(7, 3)
    values, gates = layer[0](h).chunk(2, -1)
    torch.testing.assert_close(layer(h), values * gates.sigmoid())
    block, image = convolution(2, 4, activation=gate), torch.randn(3, 2, 6, 6)
    values, gates = block[0](image).chunk(2, 1)
    torch.testing.assert_close(block(image), values * gates.sigmoid())


def test_a_residual_block_without_its_convolutions_is_its_shortcut():
    for activation in (nn.ReLU, gate):
        block = ResidualBlock(4, 4, activation=activation)
        for parameter in block.inner.parameters():
            nn.init.zeros_(parameter)
        h = torch.rand(2, 4, 5, 5)
        assert torch.equal(block(h), h)


def test_image_batch_norm_is_torchs_and_can_be_frozen():
    ours, torchs, h = ImageBatchNorm(3), nn.BatchNorm2d(3), 2 + torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(ours(h), torchs(h))
    torch.testing.assert_close(ours.running_mean, torchs.running_mean)
    before = ours.running_mean.clone()
    with frozen_statistics():
        torch.testing.assert_close(ours(h), torchs.eval()(h))
    assert torch.equal(ours.running_mean, before)


@pytest.mark.parametrize("name", [name for name in LIKELIHOODS if name != "mixed"])
@pytest.mark.parametrize("convolutional", [False, True])
def test_a_likelihood_starts_at_the_means_of_the_pixels(name, convolutional):
    shape, means = (1, 3, 4), torch.linspace(0.2, 0.8, 12)
    options = {"readout": lambda inputs, outputs: PixelReadout(shape, inputs, outputs)} if convolutional else {}
    likelihood = LIKELIHOODS[name](24, 12, **options)
    likelihood.start_at_means(means)
    torch.testing.assert_close(likelihood(torch.zeros(24)).mean, means, rtol=1e-3, atol=1e-3)


def test_layer_norm_sees_each_example_alone():
    network = mlp([4, 6, 5], layer_norm=True)
    h = torch.randn(3, 7, 4)
    torch.testing.assert_close(network(h)[1, 2], network(h[1, 2]))
    normalized = network[:2](h)
    torch.testing.assert_close(normalized.mean(-1), torch.zeros(3, 7), atol=1e-5, rtol=0)
    assert not any(isinstance(each, nn.Linear) and each.bias is not None for each in network)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_residual_layer_without_its_second_map_is_the_identity(activation):
    network = mlp([4, 6, 6, 6, 5], activation=ACTIVATIONS[activation], residual=True, batch_norm=True).eval()
    residual = [each for each in network if isinstance(each, Residual)]
    assert len(residual) == 2, "layers of equal input and output"
    h = torch.randn(7, 6)
    expected = [h + each.network[-1](each.network[:-1](h)) for each in residual]
    torch.testing.assert_close([each(h) for each in residual], expected)
    for each in residual:
        nn.init.zeros_(each.network[-1].weight)
        nn.init.zeros_(each.network[-1].bias)
        assert torch.equal(each(h), h)


def test_dropout_and_depth_of_the_guide_are_its_own():
    recipe = Recipe(
        hidden_layers=1, encoder_layers=3, dropout=0.4, latent_sizes=(3, 2), hidden_sizes=(8, 6), likelihood="bernoulli"
    )
    vae = assemble(recipe, (1, 3, 4))
    maps = {name: sum(isinstance(each, nn.Linear) for each in part.modules()) for name, part in vae.named_children()}
    # Two networks and their heads on either side.
    assert maps == {"model": 2 * 1 + 2, "guide": 2 * 3 + 2}
    assert not any(isinstance(each, nn.Dropout) for each in vae.model.modules())
    assert sum(isinstance(each, nn.Dropout) for each in vae.guide.modules()) == 6


def test_statistics_are_collected_without_dropout():
    """Those of a guide with dropout are those of the same guide without, since it is measured without."""
    recipe = Recipe(batch_norm=True, latent_sizes=(3,), hidden_sizes=(8,), likelihood="bernoulli")
    statistics = []
    for dropout in (0.0, 0.5):
        torch.manual_seed(0)
        vae = assemble(recipe.replace(dropout=dropout), (1, 3, 4))
        torch.manual_seed(1)
        recollect_statistics(vae, [torch.rand(40, 12).round() for _ in range(3)])
        norms = [each for each in vae.guide.modules() if isinstance(each, BatchNorm)]
        statistics.append([value for norm in norms for value in (norm.running_mean, norm.running_var)])
    for plain, dropped in zip(*statistics, strict=True):
        torch.testing.assert_close(dropped, plain)
