"""CUDA graphs, where there is a CUDA device; elsewhere, that nothing stands in their way."""

import pytest
import torch

from pyrovae.engine.capture import capture
from pyrovae.engine.cuda_graphs import CudaGraphFunction
from pyrovae.inference.objectives import ELBO
from pyrovae.inference.svi import CompiledSVI
from pyrovae.inference.updates import adam
from pyrovae.programs.architecture import Architecture
from pyrovae.programs.guides import VAE, Ladder, MeanField
from pyrovae.programs.models import GenerativeModel

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def counting(count):
    """A function that adds its input to ``count`` in place."""

    def function(inputs):
        count.add_(inputs[0])
        return [count * 2, None]

    return function


def test_a_captured_step_holds_nothing_of_another_device():
    """On the device meta, which computes nothing: were anything left on the CPU, no CUDA graph would ever be recorded."""
    sizes = Architecture(shape=(1, 3, 4), latent_sizes=(3, 2), hidden_sizes=(8, 7), batch_norm=True)
    model = GenerativeModel.of(sizes)
    guide = Ladder.of(model, sizes)
    programs = VAE(model, guide).to("meta")
    parameters = list(programs.parameters())

    def step(x):
        loss = ELBO().differentiable_loss(model, guide, x)
        return [loss, *torch.autograd.grad(loss, parameters)]

    graph = capture(step, [torch.zeros(5, 12, device="meta")])
    assert {constant.device.type for constant in graph.constants} == {"meta"}


@pytest.mark.parametrize("decoupled", [False, True])
def test_a_captured_update_reads_no_value(decoupled):
    """On the device meta, which has none to read: all before torch's fused kernel, which meta has not."""
    lists = [[torch.zeros(3, device="meta"), torch.zeros((), device="meta")] for _ in range(4)]
    steps = [torch.zeros((), device="meta") for _ in range(2)]
    rate, taken = torch.zeros((), device="meta"), torch.ones((), dtype=torch.bool, device="meta")
    with pytest.raises(NotImplementedError, match="_fused_adam"):
        adam(*lists, steps, rate, taken, 0.9, 0.99, 0.1, 1e-8, decoupled)


@on_cuda
def test_a_recording_moves_its_state_once_for_each_call():
    count = torch.zeros((), device="cuda")
    run = CudaGraphFunction(counting(count), [count], count.device)
    outputs = [run([torch.tensor(value, device="cuda")])[0] for value in (3.0, 4.0)]
    assert [each.item() for each in outputs] == [6, 14]
    assert count.item() == 7


@on_cuda
def test_random_numbers_are_new_at_every_replay():
    run = CudaGraphFunction(lambda inputs: [torch.rand_like(inputs[0])], [], torch.device("cuda"))
    first, second = (run([torch.zeros(5, device="cuda")])[0] for _ in range(2))
    assert not torch.equal(first, second)


@on_cuda
def test_a_recording_that_fails_leaves_random_numbers_as_they_were():
    device = torch.device("cuda")
    earlier = CudaGraphFunction(lambda inputs: [torch.rand_like(inputs[0])], [], device)
    x = torch.ones(5, device=device)

    def drawn(run):
        torch.manual_seed(3)
        return run([x])[0]

    expected = drawn(earlier)
    run = CudaGraphFunction(lambda inputs: [torch.rand_like(inputs[0]) * inputs[0].sum().item()], [], device)
    with pytest.warns(UserWarning, match="could not be recorded: .*not permitted"):
        run([x])
    torch.testing.assert_close(drawn(earlier), expected, rtol=0, atol=0)
    torch.testing.assert_close(drawn(run), 5 * drawn(lambda inputs: [torch.rand_like(inputs[0])]))


@on_cuda
@pytest.mark.parametrize("fused", [False, True])
def test_compiled_training_agrees_with_eager_on_cuda(fused):
    """Other random numbers, so on the mean of the last losses: within a twentieth."""
    x = torch.bernoulli(torch.rand(12, device="cuda").expand(256, -1))
    ends = []
    for engine in ("eager", "compiled"):
        torch.manual_seed(0)
        sizes = Architecture(shape=(1, 3, 4), latent_sizes=(3,), hidden_sizes=(16,))
        model = GenerativeModel.of(sizes)
        guide = MeanField.of(model, sizes)
        programs = torch.nn.ModuleList([model, guide]).cuda()
        optimizer = torch.optim.Adam(programs.parameters(), lr=0.01, fused=fused)
        svi = CompiledSVI(model, guide, optimizer, ELBO(), engine=engine)
        losses = [svi.step(x) for _ in range(200)]
        svi.check()
        ends.append(torch.stack(losses[-50:]).mean().item())
        if engine == "compiled":
            (plan,) = (each.payload for each in svi._function.situations)
            assert isinstance(plan.run, CudaGraphFunction)
            assert plan.run._graph is not None
            assert all(int(state["step"]) == 200 for state in optimizer.state.values())
    assert ends[1] == pytest.approx(ends[0], rel=0.05)
