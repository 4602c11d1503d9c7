"""The measures of trained programs: likelihood, bounds, latents, gaps, imputation."""
