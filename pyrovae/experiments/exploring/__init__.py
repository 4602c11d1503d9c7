"""A page, and a widget of notebooks, to play with a trained model."""
