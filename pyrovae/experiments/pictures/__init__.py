"""Pictures of runs: ``gallery.draw`` draws one of ``kinds.KINDS`` of some ``views``."""
