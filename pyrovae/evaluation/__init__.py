"""How trained programs are measured."""
