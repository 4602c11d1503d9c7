"""Imports go one way; the order is that of the architecture."""

import ast
from configparser import ConfigParser
from pathlib import Path

import pytest

import pyrovae

HOUSE = Path(pyrovae.__file__).parent
# From the ground up: a module imports only from those before it in its row, and from whole groups before its own.
ORDER = [
    ["errors", "extras", "seeds"],
    [
        "data.reading",
        "data.rows",
        "data.batches",
        "data.conditions",
        "data.protocol",
        "data.datasets",
        "data.kinds",
        "data.preparation",
        "data.published_files.readers",
        "data.published_files.archives",
        "data.published_files.matlab",
        "data.published_files.resizing",
        "data.published_files.downloads",
        "data.published_files.sources",
        "data.published_files.addresses",
        "data.published_files.stored",
        "data.published_files.omniglot",
        "data.published_files.objects",
        "data.published_files.torchvision_datasets",
        "data.benchmarks",
        "data.user_files.arrays",
        "data.user_files.ranges",
        "data.user_files.columns",
        "data.user_files.tables",
        "data.user_files.images",
        "data.user_files.datasets",
        "data.user_files.streaming",
        "data.loading",
    ],
    [
        "programs.networks",
        "programs.convolutions",
        "programs.distributions",
        "programs.flows",
        "programs.conditionals",
        "programs.columns",
        "programs.likelihoods",
        "programs.architecture",
        "programs.encoders",
        "programs.priors",
        "programs.models",
        "programs.guides",
    ],
    [
        "engine.reachable",
        "engine.modules",
        "engine.validation",
        "engine.precision",
        "engine.guards",
        "engine.numbers",
        "engine.arguments",
        "engine.calls",
        "engine.tracing",
        "engine.capture",
        "engine.collectives",
        "engine.shared_draws",
        "engine.shared_statistics",
        "engine.shares",
        "engine.partition",
        "engine.cache",
        "engine.matmul_kernels",
        "engine.cuda_graphs",
        "engine.compilation",
        "engine.compiled",
        "engine.choice",
        "engine.captured",
        "engine.repeated",
    ],
    [
        "inference.supports",
        "inference.gradients",
        "inference.plates",
        "inference.arrangements",
        "inference.particles",
        "inference.weights",
        "inference.objectives",
        "inference.warmup",
        "inference.learning_rates",
        "inference.clipping",
        "inference.updates",
        "inference.registration",
        "inference.steps",
        "inference.plain",
        "inference.plans",
        "inference.spot_checks",
        "inference.blame",
        "inference.health",
        "inference.optimizers",
        "inference.svi",
        "inference.epochs",
        "inference.state",
        "inference.training",
    ],
    [
        "evaluation.chunks",
        "evaluation.measuring",
        "evaluation.support",
        "evaluation.sampling",
        "evaluation.weighing",
        "evaluation.likelihood",
        "evaluation.latents",
        "evaluation.surgery",
        "evaluation.gaps",
        "evaluation.standardized",
        "evaluation.paths",
        "evaluation.hamiltonian",
        "evaluation.annealing",
        "evaluation.calibration",
        "evaluation.posterior",
        "evaluation.comparison",
        "evaluation.ranking",
        "evaluation.refining",
        "evaluation.oddity",
        "evaluation.using",
        "evaluation.imputation",
        "evaluation.symbols",
        "evaluation.bits_back",
        "evaluation.interventions",
        "evaluation.diagnosis",
        "evaluation.noise",
        "evaluation.functions",
    ],
    [
        "plots.style",
        "plots.encoding",
        "plots.images",
        "plots.curves",
        "plots.units",
        "plots.embeddings",
        "plots.likelihoods",
        "plots.calibration",
    ],
    [
        "experiments.tables",
        "experiments.values",
        "experiments.contradictions",
        "experiments.recipe",
        "experiments.best",
        "experiments.published",
        "experiments.building",
        "experiments.methods",
        "experiments.checking",
        "experiments.sizes",
        "experiments.environment",
        "experiments.devices",
        "experiments.files",
        "experiments.locks",
        "experiments.checkpoints",
        "experiments.optimizers",
        "experiments.memory",
        "experiments.evaluations",
        "experiments.measuring",
        "experiments.bounding",
        "experiments.summaries",
        "experiments.comparison",
        "experiments.folder",
        "experiments.sharding",
        "experiments.pictures.views",
        "experiments.pictures.needs",
        "experiments.pictures.courses",
        "experiments.pictures.drawings",
        "experiments.pictures.kinds",
        "experiments.pictures.gallery",
        "experiments.nearest",
        "experiments.report",
        "experiments.exporting",
        "experiments.new_examples",
        "experiments.using",
        "experiments.original_units",
        "experiments.exported_files",
        "experiments.model_export",
        "experiments.imputing",
        "experiments.compressing",
        "experiments.detecting",
        "experiments.diagnosing",
        "experiments.calibrating",
        "experiments.inferring",
        "experiments.exploring.pixels",
        "experiments.exploring.explorer",
        "experiments.exploring.server",
        "experiments.exploring.widget",
        "experiments.analysing",
        "experiments.evaluating",
        "experiments.run",
        "experiments.packing",
        "experiments.tracking",
        "experiments.interruption",
        "experiments.trials",
        "experiments.launch",
        "experiments.beginning",
        "experiments.processes",
        "experiments.state",
        "experiments.failing",
        "experiments.training",
        "experiments.tensorboard",
        "experiments.papers.experiment",
        "experiments.papers.latent_activity",
        "experiments.papers.vampprior_project",
        "experiments.papers.ladder_vae",
        "experiments.papers.vae_tutorial",
        "experiments.papers.iwae",
        "experiments.papers.ablation",
        "experiments.papers.best",
        "experiments.papers.table",
        "experiments.papers.quantities",
        "experiments.papers.verdicts",
        "experiments.papers.outcome",
        "experiments.papers.computed",
        "experiments.papers.one_dimension",
        "experiments.papers.ring",
        "experiments.papers.schedules",
        "experiments.papers.planning",
        "experiments.papers.members",
        "experiments.papers.writing",
        "experiments.papers.reproducing",
        "experiments.papers.progress",
        "experiments.sweeping.grid",
        "experiments.sweeping.jobs",
        "experiments.sweeping.backends",
        "experiments.sweeping.shards",
        "experiments.sweeping.results",
        "experiments.sweeping.sweep",
    ],
]
FLOORS = {module: (group, place) for group, row in enumerate(ORDER) for place, module in enumerate(row)}
STRANGERS = {("programs", "data"), ("data", "programs"), ("engine", "data"), ("engine", "programs"), ("inference", "data")}


def modules():
    for path in sorted(HOUSE.rglob("*.py")):
        # The command line, which stands above all floors, starts at __main__.
        if path.name not in ("__init__.py", "__main__.py"):
            yield ".".join(path.relative_to(HOUSE).with_suffix("").parts)


def imports(module):
    tree = ast.parse((HOUSE / f"{module.replace('.', '/')}.py").read_text())
    for node in ast.walk(tree):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{module} imports relatively"
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pyrovae"):
            base = node.module.removeprefix("pyrovae").lstrip(".")
            yield from (base,) if base in FLOORS else (f"{base}.{alias.name}".lstrip(".") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("pyrovae.") for alias in node.names if alias.name.startswith("pyrovae"))


def test_every_module_has_its_floor():
    assert sorted(FLOORS) == sorted(modules())


@pytest.mark.parametrize("module", FLOORS)
def test_imports_go_down(module):
    for imported in imports(module):
        assert imported in FLOORS, f"{module} imports {imported}, which has no floor"
        assert FLOORS[imported] < FLOORS[module], f"{module} imports {imported}, which stands above it"
        assert (module.split(".")[0], imported.split(".")[0]) not in STRANGERS, f"{module} must not know {imported}"


@pytest.mark.parametrize("name", pyrovae.__all__)
def test_public_names_exist(name):
    assert getattr(pyrovae, name).__doc__ or name.isupper()


def test_public_names_are_declared_to_type_checkers_too():
    tree = ast.parse((HOUSE / "__init__.py").read_text())
    declared = [a.asname for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names if a.asname]
    assert sorted(declared) == sorted(pyrovae.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = pyrovae.nonsense


def test_every_package_is_installed():
    """In a checkout alone: what is installed already has no setup.cfg."""
    settings = ConfigParser()
    settings.read(Path(__file__).parents[1] / "setup.cfg")
    listed = settings["options"]["packages"].split()
    found = {".".join(("pyrovae", *path.parent.relative_to(HOUSE).parts)) for path in HOUSE.rglob("__init__.py")}
    assert sorted(listed) == sorted(found | {"pyrovae.cli"})
