"""The kinds of programs that a user of Pyro brings: one small function each, which makes them alike from a seed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyro.infer import autoguide as guides

from pyro_programs import autoencoders, autoguides, bayesian, covariances, discrete, flows, sequences


@dataclass(frozen=True)
class Program:
    """A program, and what becomes of it.

    Args:
        kind: its row in the table for users.
        make: gives model, guide, the arguments of each step, and the loss.
        refused: what the refusal says under engine ``graph`` and ``compiled``, where it cannot be captured.
        compiles: whether engine ``compiled`` compiles it; it runs the graph otherwise, and says so.
        predicts: whether stock Pyro's ``Predictive`` takes the trained program.
    """

    kind: str
    make: Callable[[], tuple[Any, Any, Iterable[tuple], Any]]
    refused: str | None = None
    compiles: bool = True
    predicts: bool = True


def _guided(guide, **options):
    return partial(autoguides.guided, partial(guide, **options))


PROGRAMS = {
    "tutorial": Program("VAE as methods of one module (Pyro's tutorial), `pyro.module`", autoencoders.tutorial),
    "grey pixels": Program("Grey pixels under `Bernoulli(validate_args=False)`", autoencoders.grey_pixels),
    "analytic kl": Program("`TraceMeanField_ELBO`", autoencoders.analytic_kl),
    "vectorized particles": Program("`Trace_ELBO` with vectorized particles", autoencoders.vectorized_particles),
    "particles in turn": Program("`Trace_ELBO` with particles one after the other", autoencoders.particles_in_turn),
    "tensor monte carlo": Program("`TraceTMC_ELBO`", autoencoders.tensor_monte_carlo),
    "mmd": Program("`Trace_MMD`", autoencoders.maximum_mean_discrepancy),
    "float64": Program("float64", autoencoders.double_precision),
    "weight tying": Program("Weight tying", autoencoders.weight_tying),
    "convolutions": Program("Convolutions of your own, with batch normalization and dropout", autoencoders.convolutions),
    "spectral norm": Program("`spectral_norm` and `weight_norm`", autoencoders.spectral_norm),
    "one-hot labels": Program("`one_hot` labels", autoencoders.one_hot_labels),
    "dictionaries": Program("Dictionaries as batches", autoencoders.dictionaries),
    "annealing factor": Program("A number as argument that scales (KL annealing)", autoencoders.annealing_factor),
    "gmm-vae": Program("Gaussian mixture VAE, its class summed out (`TraceEnum_ELBO`)", discrete.gaussian_mixture),
    "ss-vae": Program("Semi-supervised VAE, labels in some batches", discrete.semi_supervised),
    "ss-vae's auxiliary loss": Program("Its auxiliary loss, which has no site without labels", discrete.auxiliary_loss),
    "topics": Program("Topic model (ProdLDA), `Multinomial` of a fixed total", autoencoders.topics),
    "counted topics": Program(
        "A value read from the batch: `int(x.sum())`, `if`, `float`", autoencoders.counted_topics, refused="reads"
    ),
    "counts": Program("Counts: zero-inflated negative binomial", autoencoders.counts),
    "gumbel-softmax": Program("Relaxed classes (Gumbel-softmax)", discrete.gumbel_softmax),
    "score function": Program(
        "Discrete latents that nothing sums out (score function)",
        discrete.score_function,
        refused="'y'.*no rsample.*sum it out",
    ),
    "boolean index": Program("Boolean indexing, `x[mask]`", autoencoders.missing_by_index, refused="index.*(mask|where)"),
    "masked pixels": Program("Missing values left out by `.mask`", autoencoders.missing_by_mask),
    "gru": Program("`nn.GRU`, `nn.RNN`", sequences.gru),
    "lstm": Program("`nn.LSTM`", sequences.lstm, refused="LSTM.*(GRU|eager)"),
    "multi-head attention": Program("`nn.MultiheadAttention`", sequences.multihead_attention),
    "transformer": Program("`nn.TransformerEncoderLayer`", sequences.transformer),
    "packed sequences": Program("`pack_padded_sequence`", sequences.packed_sequences, refused="pack.*mask"),
    "deep markov": Program("Deep Markov model with masks, lengths and an annealing factor", sequences.deep_markov),
    "hmm": Program("Hidden Markov model, states summed out along `pyro.markov`", sequences.hidden_markov),
    "gaussian hmm": Program("`GaussianHMM`", sequences.gaussian_hidden_markov, compiles=False),
    "sequential plate": Program("A plate that is looped over", sequences.sequential_plate),
    "planar flow": Program("Planar flows of Pyro", flows.planar),
    "iaf": Program("`affine_autoregressive` of Pyro", flows.inverse_autoregressive),
    "spline": Program("Splines of Pyro", flows.spline, refused="index.*mask"),
    "conditional flow": Program("Conditional flows of Pyro", flows.conditional_flow),
    "zuko nice": Program("zuko's `NICE` by `ZukoToPyro`", flows.zuko_coupling, predicts=False),
    "zuko nsf": Program("zuko's `NSF` (splines) by `ZukoToPyro`", flows.zuko_spline, predicts=False),
    "zuko prior": Program("A flow of zuko's as prior", flows.zuko_prior, predicts=False),
    "bayesian network": Program("`PyroModule`, `PyroSample`, `PyroParam`, `pyro.deterministic`", bayesian.bayesian_network),
    "parameters": Program("`pyro.param`, initialized by noise or a function", bayesian.parameters),
    "factor": Program("`pyro.factor`", bayesian.factor),
    "inner handlers": Program("`poutine.mask`, `scale`, `block`, `condition` inside the program", bayesian.inner_handlers),
    "conditioned": Program("`pyro.condition`, a step without arguments", bayesian.conditioned),
    "loc-scale reparam": Program("`LocScaleReparam`", bayesian.loc_scale_reparam),
    "transform reparam": Program("`TransformReparam`", bayesian.transform_reparam),
    "dirichlet": Program("Dirichlet", bayesian.dirichlet),
    "beta": Program("Beta", bayesian.beta),
    "gamma": Program("Gamma", bayesian.gamma),
    "lkj": Program("LKJ and `MultivariateNormal(scale_tril=...)`", covariances.lkj),
    "cholesky": Program("Cholesky: `MultivariateNormal(covariance_matrix=...)`", covariances.cholesky, compiles=False),
    "inverse": Program("`torch.linalg.inv`, `slogdet`", covariances.inverse, compiles=False),
    "subsampled plate": Program("A plate that draws its rows, a step without arguments", bayesian.subsampled_plate),
    "local parameters": Program("Parameters for each row, `pyro.subsample`", bayesian.local_parameters),
    "nested plates": Program("Nested plates", bayesian.nested_plates),
    "mixture": Program("Gaussian mixture, clusters summed out in the model", bayesian.mixture),
    "easyguide": Program("`EasyGuide`", bayesian.easyguide),
    "gp regression": Program("`GPRegression`", covariances.gp_regression, compiles=False),
    "sparse gp": Program("`VariationalSparseGP` with `set_data` before each step", covariances.sparse_gp, compiles=False),
    "gplvm": Program("`GPLVM`", covariances.latent_gp, compiles=False),
    "AutoNormal": Program("`AutoNormal`", _guided(guides.AutoNormal)),
    "AutoDiagonalNormal": Program("`AutoDiagonalNormal`", _guided(guides.AutoDiagonalNormal)),
    "AutoMultivariateNormal": Program("`AutoMultivariateNormal`", _guided(guides.AutoMultivariateNormal)),
    "AutoLowRankMultivariateNormal": Program(
        "`AutoLowRankMultivariateNormal`", _guided(guides.AutoLowRankMultivariateNormal, rank=2), compiles=False
    ),
    "AutoDelta": Program("`AutoDelta`", _guided(guides.AutoDelta)),
    "AutoLaplaceApproximation": Program("`AutoLaplaceApproximation`", _guided(guides.AutoLaplaceApproximation)),
    "AutoGaussian": Program("`AutoGaussian`", _guided(guides.AutoGaussian, backend="dense"), compiles=False),
    "AutoNormalMessenger": Program("`AutoNormalMessenger`", _guided(guides.AutoNormalMessenger)),
    "AutoHierarchicalNormalMessenger": Program(
        "`AutoHierarchicalNormalMessenger`", _guided(guides.AutoHierarchicalNormalMessenger)
    ),
    "AutoStructured": Program("`AutoStructured`", autoguides.structured),
    "AutoNormalizingFlow": Program("`AutoNormalizingFlow` of planar flows", autoguides.flow),
    "AutoIAFNormal": Program("`AutoIAFNormal`", autoguides.inverse_autoregressive),
    "AutoNormalizingFlow of splines": Program("`AutoNormalizingFlow` of splines", autoguides.spline, refused="index.*mask"),
    "AutoGuideList": Program("`AutoGuideList`", autoguides.list_of_guides),
    "AutoCallable": Program("`AutoGuideList` with a guide of your own", autoguides.by_hand),
    "AutoDiscreteParallel": Program("`AutoDiscreteParallel`", autoguides.discrete),
}
