"""How programs are trained."""
