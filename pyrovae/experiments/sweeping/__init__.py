"""Many trainings: a grid over settings and seeds, each member a run folder."""
