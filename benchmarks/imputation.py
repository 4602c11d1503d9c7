"""Gaps in tables filled by pyrovae, by means, and by k nearest neighbours of scikit-learn.

    python benchmarks/imputation.py --share 0.2

Wine, breast cancer, diabetes and digits, as they ship with scikit-learn, written as CSV by pandas with a fifth of their fields
empty. 'pyrovae' is one layer of latents, trained with --missing on the bound of Mattei and Frellsen (2019) with 20 samples; the
kinds of columns are found out. The error is the root mean square over the gaps, each column in its standard deviations; that of
nearest neighbours is of standardised columns too, with the best number of neighbours by that very error.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas
from sklearn import datasets
from sklearn.impute import KNNImputer

from pyrovae import Recipe, train

TABLES = {
    "wine": datasets.load_wine,
    "breast cancer": datasets.load_breast_cancer,
    "diabetes": datasets.load_diabetes,
    "digits": datasets.load_digits,
}
NEIGHBOURS = (3, 5, 10, 20)


def with_gaps(table, share, seed=0):
    """The table with a share of its fields empty."""
    return table.mask(np.random.default_rng(seed).random(table.shape) < share)


def error(filled, table, gaps):
    """Root mean square over the gaps, in standard deviations of each column."""
    away = (np.asarray(filled) - table.to_numpy()) / table.std(ddof=0).to_numpy()
    return float(np.sqrt((away[gaps] ** 2).mean()))


def by_neighbours(holed, number):
    """scikit-learn's imputation of standardised columns."""
    mean, deviation = holed.mean(), holed.std(ddof=0)
    return KNNImputer(n_neighbors=number).fit_transform((holed - mean) / deviation) * deviation.to_numpy() + mean.to_numpy()


def by_pyrovae(holed, folder, **settings):
    """The mean of the fillings of a run that is trained on the table itself."""
    path = folder / "table.csv"
    holed.to_csv(path, index=False)
    steps, batch = 3000, min(64, len(holed) // 2)
    recipe = Recipe(
        dataset=str(path),
        missing=True,
        objective="iwelbo",
        num_particles=20,
        latent_sizes=(10,),
        hidden_sizes=(64,),
        batch_size=batch,
        epochs=max(1, steps * batch // len(holed)),
    ).replace(**settings)
    run = train(recipe, folder / "run", engine="graph")
    filled = run.impute(holed, draws=100, num_samples=1000).mean(0)
    return pandas.DataFrame(filled, columns=run.required_preparation.columns)


def compared(name, share, folder):
    """The errors on one table."""
    table = TABLES[name](as_frame=True).data
    table = table.loc[:, table.nunique() > 1].astype(float)
    table.columns = [each.replace(" ", "_") for each in table.columns]
    holed = with_gaps(table, share)
    start = time.perf_counter()
    filled = by_pyrovae(holed, folder)
    seconds = time.perf_counter() - start
    # A column that does not vary in the training part is not modelled: it counts for nobody.
    table, holed = table[filled.columns], holed[filled.columns]
    gaps = holed.isna().to_numpy()
    ours = error(filled, table, gaps)
    found = {number: error(by_neighbours(holed, number), table, gaps) for number in NEIGHBOURS}
    best = min(found, key=found.get)
    means = error(holed.fillna(holed.mean()), table, gaps)
    sizes = {"rows": len(table), "columns": table.shape[1]}
    return {"table": name, **sizes, "means": means, "neighbours": found[best], "k": best, "pyrovae": ours, "seconds": seconds}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=0.2, help="of fields that are empty")
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=TABLES)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in arguments.tables:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(compared(name, arguments.share, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
