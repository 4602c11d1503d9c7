"""Keep what was reproduced, and write the pages that show it.

    python benchmarks/results.py [FOLDER ...]

Each FOLDER is one that ``pyrovae reproduce`` left behind; its figures go to benchmarks/results/NAME.json, without weights. Then
docs/papers.md, and the parts of README.md and benchmarks/RESULTS.md between their marks, are written anew from all that is
kept. A test fails where they differ.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pyrovae.experiments.papers.outcome import OUTCOME, Outcome, markdown_table
from pyrovae.experiments.papers.table import PAPERS
from pyrovae.experiments.papers.verdicts import FAILS, HOLDS, UNDECIDED, UNTESTED
from pyrovae.experiments.summaries import duration

HOUSE = Path(__file__).parent.parent
RESULTS = HOUSE / "benchmarks" / "results"
BEGIN, END = "<!-- results: written by benchmarks/results.py -->", "<!-- end of results -->"
NAMES = {
    "latent-activity": "Latent space activity (Bettencourt and Craddock)",
    "vampprior-project": "VAE with a VampPrior, project (Bergentoft et al.)",
    "ladder-vae": "Ladder VAE (Sønderby et al.)",
    "vae-tutorial": "Tutorial on VAEs (Doersch)",
    "iwae": "Importance weighted autoencoders (Burda et al.)",
    "pyrovae": "Tables of our own",
}


def keep(folder: Path) -> None:
    """Keep the record of an experiment; what says where it ran is cut to what figures depend on."""
    outcome = Outcome.load(folder / OUTCOME)
    values = outcome.as_dict()
    known = ("python", "torch", "pyro-ppl", "pyrovae", "capability", "threads", "platform")
    values["environment"] = {name: values["environment"][name] for name in known if name in values["environment"]}
    values["seconds"] = round(values["seconds"])
    # Where it was looked for is nobody else's matter.
    values["missing"] = {name: reason.partition("; looked in")[0] for name, reason in values["missing"].items()}
    for row in values["rows"]:
        row["seconds"] = round(row["seconds"], 1)
        for figure in row["figures"].values():
            figure["value"], figure["standard_error"] = round(figure["value"], 6), round(figure["standard_error"], 6)
    (RESULTS / f"{outcome.experiment}{'-whole' if _is_whole(outcome) else ''}.json").write_text(
        json.dumps(values, indent=1, ensure_ascii=False) + "\n"
    )


def kept() -> dict[str, Outcome]:
    """What is kept, in the order of the papers."""
    names = (f"{name}{ending}" for name in PAPERS for ending in ("", "-whole"))
    return {name: Outcome.load(RESULTS / f"{name}.json") for name in names if (RESULTS / f"{name}.json").exists()}


def _is_whole(outcome: Outcome) -> bool:
    """Whether its trainings have the paper's epochs; some of them may be left out."""
    experiment = PAPERS.get(outcome.experiment)
    return bool(experiment and experiment.recipes and outcome.epochs >= experiment.epochs)


def paper_of(name: str) -> str:
    return next(paper for paper in NAMES if name.startswith(paper))


def statements(outcomes: dict[str, Outcome]) -> Iterator[str]:
    """Every statement and what became of it."""
    rows = [(name, each.says, each.verdict) for name, outcome in outcomes.items() for each in outcome.verdicts]
    yield from markdown_table(("table or figure", "what is said", "here"), rows)


def counts(outcomes: dict[str, Outcome]) -> Iterator[str]:
    """How many statements of each paper hold."""
    verdicts = (HOLDS, FAILS, UNDECIDED, UNTESTED)
    yield f"| paper | tables and figures | statements | {' | '.join(verdicts)} |"
    yield f"| --- | {'--- | ' * (2 + len(verdicts))}".rstrip()
    for paper, title in NAMES.items():
        mine = [outcome for name, outcome in outcomes.items() if paper_of(name) == paper]
        found = Counter(each.verdict for outcome in mine for each in outcome.verdicts)
        made = f"{len({outcome.experiment for outcome in mine})} of {sum(paper_of(name) == paper for name in PAPERS)}"
        yield f"| {title} | {made} | {sum(found.values())} | {' | '.join(str(found[each]) for each in verdicts)} |"


def page(outcomes: dict[str, Outcome]) -> str:
    """docs/papers.md."""
    lines = [
        "# The papers' tables and figures",
        "",
        "`pyrovae reproduce NAME` makes each of them. `benchmarks/results.py` wrote this page from the records in",
        "`benchmarks/results/`. A statement of a paper is tested against an interval of ours: it holds, does not hold, or",
        "is not decided. Schedules are shortened where a table says so: what it shows then is how far so many epochs take",
        "each training, not where the paper's trainings end. With one seed the intervals cover test images alone, not the",
        "spread between trainings.",
        "",
        *counts(outcomes),
    ]
    for name, outcome in outcomes.items():
        threads = outcome.environment["threads"]
        on_threads = f"{threads} thread{'' if threads == 1 else 's'}"
        seconds = f" Took {duration(outcome.seconds)}, on {on_threads}." if outcome.seconds else ""
        lines += ["", f"## {name}", "", f"{outcome.shows[0].upper()}{outcome.shows[1:]}.{seconds}", "", *outcome.body()]
    return "\n".join(lines) + "\n"


def pages() -> dict[Path, str]:
    """Each page as it must be."""
    outcomes = kept()
    parts = {
        HOUSE / "README.md": "\n".join(counts(outcomes)),
        HOUSE / "benchmarks" / "RESULTS.md": "\n".join([*counts(outcomes), "", *statements(outcomes)]),
    }
    return {HOUSE / "docs" / "papers.md": page(outcomes)} | {path: _between(path, text) for path, text in parts.items()}


def _between(path: Path, text: str) -> str:
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def main(folders: list[Path]) -> None:
    for folder in folders:
        keep(folder)
    for path, text in pages().items():
        path.write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    main(parser.parse_args().folders)
